"""The tables of volumes; see :mod:`sandgate.store.schema`."""

import sqlalchemy as sa

from sandgate.store.column_types import ExactText, Instant
from sandgate.store.schema import partial_index
from sandgate.store.snapshot_schema import metadata

__all__ = ["environment_volumes", "metadata", "volumes"]

volumes = sa.Table(
    "volumes",
    metadata,
    sa.Column("volume_id", ExactText, primary_key=True),
    sa.Column("owner_id", ExactText, nullable=False),
    sa.Column("name", ExactText, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("server_id", ExactText),
    sa.Column("condemned", sa.Boolean, nullable=False),
    sa.Index("volumes_by_owner", "owner_id", "volume_id"),
)

# Which environments have which volumes, live ones and such as have ended.
environment_volumes = sa.Table(
    "environment_volumes",
    metadata,
    sa.Column("environment_id", ExactText, primary_key=True),
    sa.Column("volume_id", ExactText, primary_key=True),
    sa.Index("environment_volumes_by_volume", "volume_id", "environment_id"),
)

partial_index(volumes, "volumes_condemned", "volume_id", "condemned")
