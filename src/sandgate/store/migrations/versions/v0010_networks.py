"""What environments may reach of the network."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column: environments from before reach nothing."""
    op.add_column("environments", sa.Column("network", sa.Text()))
