"""Volumes, who has them, and how many a user may have."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, and add columns that are empty in rows that are there."""
    text = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    op.create_table(
        "volumes",
        sa.Column("volume_id", text, primary_key=True),
        sa.Column("owner_id", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("server_id", text),
        sa.Column("condemned", sa.Boolean, nullable=False),
    )
    op.create_index("volumes_by_owner", "volumes", ["owner_id", "volume_id"])
    op.execute("CREATE INDEX volumes_condemned ON volumes (volume_id) WHERE condemned")
    op.create_table(
        "environment_volumes",
        sa.Column("environment_id", text, primary_key=True),
        sa.Column("volume_id", text, primary_key=True),
    )
    op.create_index("environment_volumes_by_volume", "environment_volumes", ["volume_id", "environment_id"])
    op.add_column("environments", sa.Column("volumes", sa.Text()))
    op.add_column("user_quotas", sa.Column("volumes", sa.BigInteger))
    op.add_column("user_quotas", sa.Column("volume_bytes", sa.BigInteger))
