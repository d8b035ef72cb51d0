"""Versions that are kept for their runs only are found by whom they belong to."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index."""
    op.create_index("superseded_versions_by_owner", "superseded_versions", ["owner_id", "size_bytes"])
