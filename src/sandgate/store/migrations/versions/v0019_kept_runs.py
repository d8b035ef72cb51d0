"""How much is kept of ended runs, and which versions of workflows are kept for their runs only."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# As `sandgate.store.kept_runs` measures it.
_SIZES = """
INSERT INTO run_sizes (run_id, owner_id, size_bytes)
SELECT runs.run_id, runs.owner_id,
       128 + length(inputs) + coalesce(length(outputs), 0) + coalesce(length(error), 0)
       + coalesce((SELECT sum(length(stdout) + length(stderr) + coalesce(length(s.outputs), 0)
                              + coalesce(length(s.error), 0) + 128)
                   FROM run_steps s WHERE s.run_id = runs.run_id), 0)
       + coalesce((SELECT sum(length(details) + 128) FROM run_history h WHERE h.run_id = runs.run_id), 0)
FROM runs WHERE finished_at IS NOT NULL
"""
_VERSIONS = """
INSERT INTO superseded_versions (workflow_id, version, owner_id, size_bytes)
SELECT v.workflow_id, v.version, w.owner_id, length(v.definition)
FROM workflow_versions v JOIN workflows w ON w.workflow_id = v.workflow_id
WHERE v.version < w.version OR w.deleted_at IS NOT NULL
"""


def upgrade() -> None:
    """Make the tables, and fill them."""
    text = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    op.create_table(
        "superseded_versions",
        sa.Column("workflow_id", text, primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("owner_id", text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "run_sizes",
        sa.Column("run_id", text, primary_key=True),
        sa.Column("owner_id", text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
    )
    op.create_index("run_sizes_by_owner", "run_sizes", ["owner_id", "run_id", "size_bytes"])
    op.create_index("runs_by_version", "runs", ["workflow_id", "workflow_version"])
    op.execute(_SIZES)
    op.execute(_VERSIONS)
