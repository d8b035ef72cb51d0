"""What runs leave, the runs that they start, and the groups whose runs take turns."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()


def upgrade() -> None:
    """Add the columns, and the index that turns are counted by."""
    for column in (
        sa.Column("outputs", sa.Text),
        sa.Column("parent_run_id", _text()),
        sa.Column("parent_step", _text()),
        sa.Column("depth", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("slot_group", _text()),
        sa.Column("slot_limit", sa.BigInteger),
    ):
        op.add_column("runs", column)
    op.add_column("run_steps", sa.Column("child_run_id", _text()))
    op.execute(
        "CREATE INDEX runs_live_by_slot ON runs (owner_id, slot_group, run_id) "
        "WHERE finished_at IS NULL AND slot_group IS NOT NULL"
    )
