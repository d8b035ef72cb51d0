"""The files of an environment at a moment, kept to start others from."""

from dataclasses import dataclass, field
from datetime import datetime

from sandgate.core.ids import EnvironmentId, SnapshotId, UserId
from sandgate.core.states import Isolation


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot's row. ``size_bytes`` is what it takes on the server's disk, ``sha256`` is of that.

    ``files`` and ``skipped``, which is what no snapshot can hold, are as the environment told. ``disk_bytes`` is what
    its files took there. ``is_consistent`` is False when something was changed while they were read. ``server_id`` is
    where the file is.
    """

    snapshot_id: SnapshotId
    owner_id: UserId
    environment_id: EnvironmentId
    name: str
    template: str
    isolation: Isolation
    created_at: datetime
    size_bytes: int
    disk_bytes: int
    files: int
    skipped: int
    is_consistent: bool
    sha256: bytes
    server_id: str
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SnapshotUse:
    """How many snapshots a user has, and what they take together."""

    count: int
    size_bytes: int
