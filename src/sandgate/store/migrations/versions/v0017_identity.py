"""What tells a database from others."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def _text() -> sa.Text:
    return sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()


def upgrade() -> None:
    """Make the table, with its row."""
    table = op.create_table("database_identity", sa.Column("identity", _text(), primary_key=True))
    op.bulk_insert(table, [{"identity": secrets.token_hex(16)}])
