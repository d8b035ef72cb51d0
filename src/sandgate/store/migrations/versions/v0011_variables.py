"""What environments give to all code in them."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Environments of before have none."""
    op.add_column("environments", sa.Column("variables", sa.Text()))
