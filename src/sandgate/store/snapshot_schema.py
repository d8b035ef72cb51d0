"""The table of snapshots; see :mod:`sandgate.store.schema`."""

import sqlalchemy as sa

from sandgate.store.column_types import ExactText, Instant, JsonText
from sandgate.store.quota_schema import metadata

__all__ = ["metadata", "snapshots"]

snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("snapshot_id", ExactText, primary_key=True),
    sa.Column(
        "owner_id",
        ExactText,
        sa.ForeignKey("users.user_id", name="snapshots_of_users", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("environment_id", ExactText, nullable=False),
    sa.Column("name", ExactText, nullable=False),
    sa.Column("template", ExactText, nullable=False),
    sa.Column("isolation", ExactText, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("disk_bytes", sa.BigInteger, nullable=False),
    sa.Column("files", sa.BigInteger, nullable=False),
    sa.Column("skipped", sa.BigInteger, nullable=False),
    sa.Column("is_consistent", sa.Boolean, nullable=False),
    sa.Column("sha256", sa.LargeBinary, nullable=False),
    sa.Column("server_id", ExactText, nullable=False),
    sa.Column("metadata", JsonText, nullable=False),
    sa.Index("snapshots_by_owner", "owner_id", "snapshot_id"),
    sa.Index("snapshots_by_age", "created_at"),
)
