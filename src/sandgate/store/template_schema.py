"""The tables of built templates; see :mod:`sandgate.store.schema`."""

import sqlalchemy as sa

from sandgate.store.column_types import ExactText, Instant, JsonText, Utf8
from sandgate.store.volume_schema import metadata

__all__ = ["built_templates", "metadata", "template_names"]


def _owner_id(name: str, *, is_key: bool = False) -> sa.Column[str]:
    owner = sa.ForeignKey("users.user_id", name=name, ondelete="CASCADE")
    return sa.Column("owner_id", ExactText, owner, primary_key=is_key, nullable=False)


built_templates = sa.Table(
    "built_templates",
    metadata,
    sa.Column("template_id", ExactText, primary_key=True),
    _owner_id("templates_of_users"),
    sa.Column("name", ExactText, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("status", ExactText, nullable=False),
    sa.Column("status_reason", ExactText),
    sa.Column("digest", ExactText, nullable=False),
    sa.Column("interpreter", ExactText, nullable=False),
    sa.Column("is_public", sa.Boolean, nullable=False),
    sa.Column("server_id", ExactText, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("finished_at", Instant),
    sa.Column("files", sa.BigInteger),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("recipe", JsonText, nullable=False),
    sa.Column("lock", Utf8),
    # Of its own root file system, where it has one.
    sa.Column("root", JsonText),
    sa.Index("built_templates_by_owner", "owner_id", "name", "version", unique=True),
)

# The last version of each name that there was.
template_names = sa.Table(
    "template_names",
    metadata,
    _owner_id("template_names_of_users", is_key=True),
    sa.Column("name", ExactText, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
)
