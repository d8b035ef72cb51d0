"""Templates that users have had built."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def _text() -> sa.Text:
    return sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()


def _owner_id(name: str, *, is_key: bool = False) -> sa.Column[str]:
    owner = sa.ForeignKey("users.user_id", name=name, ondelete="CASCADE")
    return sa.Column("owner_id", _text(), owner, primary_key=is_key, nullable=False)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "built_templates",
        sa.Column("template_id", _text(), primary_key=True),
        _owner_id("templates_of_users"),
        sa.Column("name", _text(), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("status", _text(), nullable=False),
        sa.Column("status_reason", _text()),
        sa.Column("digest", _text(), nullable=False),
        sa.Column("interpreter", _text(), nullable=False),
        sa.Column("is_public", sa.Boolean, nullable=False),
        sa.Column("server_id", _text(), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("files", sa.BigInteger),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("recipe", sa.Text, nullable=False),
        sa.Column("lock", sa.LargeBinary),
    )
    op.create_index("built_templates_by_owner", "built_templates", ["owner_id", "name", "version"], unique=True)
    op.create_table(
        "template_names",
        _owner_id("template_names_of_users", is_key=True),
        sa.Column("name", _text(), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
