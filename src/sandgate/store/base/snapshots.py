"""Rows of snapshots, and the files that they are about."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from sandgate.core.ids import SnapshotId, UserId
from sandgate.core.page import Page, PageRequest
from sandgate.core.snapshot import Snapshot, SnapshotUse


class SnapshotSink(Protocol):
    """The file of a snapshot that is being written. Every method blocks, and raises ``OSError``."""

    @property
    def descriptor(self) -> int:
        """The file, for somebody else who writes all of it."""
        ...

    def write(self, piece: bytes) -> None:
        """Go on with these."""
        ...

    def take_up(self) -> int:
        """Read what somebody else has written, for its digest; how long it is. Instead of ``write``."""
        ...

    def finish(self) -> bytes:
        """It is on the disk, whole, whatever happens from now on; its SHA-256."""
        ...

    def discard(self) -> None:
        """There is no such file any more."""
        ...

    def reopen(self) -> int:
        """A descriptor for reading what was written, which nobody else will find; instead of ``finish``."""
        ...


class SnapshotFolder(Protocol):
    """The files of snapshots. Every method blocks, and raises ``OSError``."""

    def create(self, snapshot_id: SnapshotId) -> SnapshotSink:
        """A new file, which is nobody's before it is finished."""
        ...

    def open(self, snapshot_id: SnapshotId) -> int:
        """A descriptor for reading; the caller closes it."""
        ...

    def delete(self, snapshot_ids: Collection[SnapshotId]) -> None:
        """Remove files; none is no error."""
        ...

    def list(self) -> Collection[SnapshotId]:
        """Those that are there, whole."""
        ...

    def clear(self) -> None:
        """Remove what an earlier process did not finish."""
        ...


class SnapshotStore(Protocol):
    """Rows of snapshots. A file is written before its row, and removed after it."""

    async def insert(self, snapshot: Snapshot, most: SnapshotUse) -> bool:
        """Add a row; False, with nothing written, when its owner would have more than ``most``, or is gone."""
        ...

    async def find(self, snapshot_id: SnapshotId) -> Snapshot | None:
        """The row."""
        ...

    async def list(
        self, owner_id: UserId | None, page: PageRequest, *, name: str | None = None, template: str | None = None
    ) -> Page[Snapshot]:
        """A page of one owner's (None: everybody's), newest first."""
        ...

    async def measure(self, owner_id: UserId) -> SnapshotUse:
        """How much a user has."""
        ...

    async def count_of(self, template: str, server_id: str, owner_id: UserId | None) -> int:
        """How many there are on a server of a template, of one owner (None: of everybody)."""
        ...

    async def delete(self, snapshot_id: SnapshotId) -> bool:
        """Remove the row; False when there is none."""
        ...

    async def prune(self, before: datetime, most: int) -> int:
        """Remove at most ``most`` rows that are older; how many went."""
        ...

    async def find_orphans(self, snapshot_ids: Sequence[SnapshotId]) -> Sequence[SnapshotId]:
        """Those that are no snapshots of this database, in the same order."""
        ...
