"""In which session an execution ran, and what it has shown there."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, empty in rows that are there."""
    text = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    op.add_column("executions", sa.Column("session_id", text))
    op.add_column("executions", sa.Column("results", sa.Text()))
