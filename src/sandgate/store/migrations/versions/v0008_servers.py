"""Which server an environment is on and a claim of an idempotency key is from, and which servers live."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()


def upgrade() -> None:
    """Add the columns, empty in rows that are there, and the table."""
    op.add_column("environments", sa.Column("server_id", _text()))
    op.add_column("idempotency", sa.Column("claim_id", _text()))
    op.add_column("idempotency", sa.Column("server_id", _text()))
    op.create_table(
        "servers",
        sa.Column("server_id", _text(), primary_key=True),
        sa.Column("lease_until", sa.BigInteger, nullable=False),
    )
