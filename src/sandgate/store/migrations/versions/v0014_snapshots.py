"""Snapshots of environments, what users may have of them, and which environments began as one."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_TEXTS = ("environment_id", "name", "template", "isolation")
_NUMBERS = ("created_at", "size_bytes", "disk_bytes", "files", "skipped")


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()


def upgrade() -> None:
    """Make the table, and add the columns, empty in rows that are there."""
    op.create_table(
        "snapshots",
        sa.Column("snapshot_id", _text(), primary_key=True),
        sa.Column(
            "owner_id",
            _text(),
            sa.ForeignKey("users.user_id", name="snapshots_of_users", ondelete="CASCADE"),
            nullable=False,
        ),
        *(sa.Column(name, _text(), nullable=False) for name in _TEXTS),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _NUMBERS),
        sa.Column("is_consistent", sa.Boolean, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("server_id", _text(), nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
    )
    op.create_index("snapshots_by_owner", "snapshots", ["owner_id", "snapshot_id"])
    op.create_index("snapshots_by_age", "snapshots", ["created_at"])
    for name in ("snapshots", "snapshot_bytes"):
        op.add_column("user_quotas", sa.Column(name, sa.BigInteger))
    for name in ("snapshot_id", "forked_from"):
        op.add_column("environments", sa.Column(name, _text()))
