"""What users may use, and have used."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_FIGURES = (
    "environments",
    "memory_bytes",
    "executions_per_day",
    "executions_at_once",
    "environment_memory_bytes",
    "environment_cpu_millis",
    "environment_processes",
    "environment_disk_bytes",
)


def _user_id(name: str) -> sa.Column[str]:
    kind = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    return sa.Column("user_id", kind, sa.ForeignKey("users.user_id", name=name, ondelete="CASCADE"), primary_key=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table("user_quotas", _user_id("quotas_of_users"), *(sa.Column(name, sa.BigInteger) for name in _FIGURES))
    op.create_table(
        "user_executions",
        _user_id("executions_of_users"),
        sa.Column("day", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("executions", sa.BigInteger, nullable=False),
    )
    op.create_index("user_executions_by_day", "user_executions", ["day"])
