"""The tables of quotas; see :mod:`sandgate.store.schema`."""

import sqlalchemy as sa

from sandgate.store.audit_schema import metadata
from sandgate.store.column_types import ExactText

__all__ = ["metadata", "user_executions", "user_quotas"]


def _user_id(name: str) -> sa.Column[str]:
    return sa.Column(
        "user_id", ExactText, sa.ForeignKey("users.user_id", name=name, ondelete="CASCADE"), primary_key=True
    )


user_quotas = sa.Table(
    "user_quotas",
    metadata,
    _user_id("quotas_of_users"),
    sa.Column("environments", sa.BigInteger),
    sa.Column("memory_bytes", sa.BigInteger),
    sa.Column("executions_per_day", sa.BigInteger),
    sa.Column("executions_at_once", sa.BigInteger),
    sa.Column("environment_memory_bytes", sa.BigInteger),
    sa.Column("environment_cpu_millis", sa.BigInteger),
    sa.Column("environment_processes", sa.BigInteger),
    sa.Column("environment_disk_bytes", sa.BigInteger),
    sa.Column("snapshots", sa.BigInteger),
    sa.Column("snapshot_bytes", sa.BigInteger),
    sa.Column("volumes", sa.BigInteger),
    sa.Column("volume_bytes", sa.BigInteger),
)

# ``day`` counts from 1970.
user_executions = sa.Table(
    "user_executions",
    metadata,
    _user_id("executions_of_users"),
    sa.Column("day", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("executions", sa.BigInteger, nullable=False),
    sa.Index("user_executions_by_day", "day"),
)
