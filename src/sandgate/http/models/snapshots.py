"""Snapshots and copies of environments, as clients ask for and get to read them."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from sandgate.core.snapshot import Snapshot
from sandgate.core.states import Isolation
from sandgate.environments.life import NewCopies
from sandgate.environments.snapshots import NewSnapshot
from sandgate.http.models.base import Model
from sandgate.http.models.parts import Cursor, Whole, with_example
from sandgate.http.models.requests import EnvironmentName, Lifetime, Metadata, example
from sandgate.http.pagination import PageQuery

_SNAPSHOT_ID = "snap-06evrhxq8g000wmabyzsqnd3wf"
_SNAPSHOT = {
    "snapshot_id": _SNAPSHOT_ID,
    "environment_id": "env-06evrhxq8g000wmabyzsqnd3wf",
    "name": "prepared",
    "template": "python-3.9",
    "isolation": "standard",
    "creation_time": "2026-01-01T00:00:00Z",
    "size_bytes": 1_054_720,
    "files": 12,
    "skipped": 0,
    "consistent": True,
    "metadata": {},
    "owner_id": "user-06evrhwp4g000e8v0zrc4v1m6h",
}


class CreateSnapshot(Model):
    """A new snapshot."""

    model_config = example({}, {"name": "prepared", "metadata": {"step": "installed"}})

    name: EnvironmentName | None = None
    metadata: Metadata | None = None

    def wanted(self) -> NewSnapshot:
        """For the use case."""
        return NewSnapshot(self.name, self.metadata)


class SnapshotAnswer(Model):
    """All that code had changed in an environment, as it was at one moment."""

    model_config = with_example(_SNAPSHOT)

    snapshot_id: str
    environment_id: Annotated[str, Field(description="Of what it was made.")]
    name: str
    template: str
    isolation: Isolation
    creation_time: datetime
    size_bytes: Annotated[int, Field(description="What it takes on the server's disk.")]
    files: int
    skipped: Annotated[int, Field(description="What no snapshot can hold: sockets, and paths that are too long.")]
    consistent: Annotated[
        bool, Field(description="Whether all of it is as it was at one moment; false when code wrote meanwhile.")
    ]
    metadata: dict[str, str]
    owner_id: str

    @classmethod
    def of(cls, row: Snapshot) -> "SnapshotAnswer":
        """From the record."""
        return cls(
            snapshot_id=row.snapshot_id,
            environment_id=row.environment_id,
            name=row.name,
            template=row.template,
            isolation=row.isolation,
            creation_time=row.created_at,
            size_bytes=row.size_bytes,
            files=row.files,
            skipped=row.skipped,
            consistent=row.is_consistent,
            metadata=row.metadata,
            owner_id=row.owner_id,
        )


class SnapshotsAnswer(Model):
    """A page of snapshots, newest first."""

    model_config = with_example({"snapshots": [_SNAPSHOT], "next_cursor": None})

    snapshots: list[SnapshotAnswer]
    next_cursor: Cursor


class SnapshotDeletedAnswer(Model):
    """Nothing can begin with it any more; what has begun keeps its files."""

    model_config = with_example({"snapshot_id": _SNAPSHOT_ID, "deleted": True})

    snapshot_id: str
    deleted: bool = True


class ListSnapshots(PageQuery):
    """Which snapshots are wanted."""

    template: Annotated[str | None, Field(max_length=128)] = None
    name: Annotated[str | None, Field(max_length=63)] = None


class ForkEnvironment(Model):
    """Copies of an environment; what is left out is as the environment has it."""

    model_config = example({"count": 3}, {"count": 1, "name": "second-try", "timeout": 600})

    count: Annotated[int, Field(ge=1, le=1000, description="How many; the server's settings have a bound."), Whole] = 1
    name: EnvironmentName | None = None
    metadata: Metadata | None = None
    timeout: Lifetime | None = None

    def wanted(self) -> NewCopies:
        """For the use case."""
        return NewCopies(self.count, self.name, self.metadata, self.timeout)
