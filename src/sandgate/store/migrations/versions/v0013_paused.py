"""Environments that are paused, and what makes them so."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, empty in rows that are there."""
    text = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    op.add_column("environments", sa.Column("on_timeout", text))
    op.add_column("environments", sa.Column("idle_timeout_s", sa.BigInteger))
    op.add_column("environments", sa.Column("paused_at", sa.BigInteger))
    op.add_column("environments", sa.Column("remaining_s", sa.Double))
