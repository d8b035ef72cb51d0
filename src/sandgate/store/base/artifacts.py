"""Rows of artifacts; those of an attempt are written with its result, see ``RunChange``."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sandgate.core.artifact import Artifact, ArtifactId
from sandgate.core.ids import RunId, UserId
from sandgate.core.page import Page, PageRequest


@dataclass(frozen=True, slots=True)
class Kept:
    """How much a run has kept."""

    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Pack:
    """The file with all that one attempt left."""

    run_id: RunId
    name: str


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file in a pack."""

    path: str
    offset_bytes: int
    size_bytes: int
    sha256: bytes


class PackSink(Protocol):
    """A pack that is being written. Every method blocks, and raises ``OSError``."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    def write(self, parts: Iterable[str | bytes]) -> None:
        """Go on with these: a text begins a file of that name, bytes belong to the file begun last."""
        ...

    def finish(self) -> Sequence[PackedFile]:
        """Everything is on the disk, whatever happens from now on; what the pack holds."""
        ...

    def discard(self) -> None:
        """There is no such pack any more."""
        ...


class PackFolder(Protocol):
    """The bytes of artifacts. Every method blocks, and raises ``OSError``."""

    def create(self, run_id: RunId) -> PackSink:
        """A new pack of a run."""
        ...

    def open(self, pack: Pack) -> int:
        """A descriptor for reading; the caller closes it."""
        ...

    def delete(self, packs: Iterable[Pack]) -> None:
        """Remove packs; none is no error."""
        ...

    def delete_runs(self, run_ids: Iterable[RunId]) -> None:
        """Remove all that these runs have; nothing is no error."""
        ...

    def list_runs(self, after: str, most: int) -> Sequence[tuple[RunId, datetime]]:
        """Runs that have something, in order of their ids, and when something was last added."""
        ...


class ArtifactStore(Protocol):
    """Rows of artifacts. Their bytes are elsewhere, and are removed after the rows."""

    async def find(self, run_id: RunId, artifact_id: ArtifactId) -> Artifact | None:
        """The row, if it is one of this run."""
        ...

    async def list(self, run_id: RunId, page: PageRequest, *, step: str | None = None) -> Page[Artifact]:
        """A page of what a run kept, newest first."""
        ...

    async def measure(self, run_id: RunId) -> Kept:
        """How much a run has kept."""
        ...

    async def prune(self, before: datetime, most: int) -> Sequence[Pack]:
        """Remove the rows of at most ``most`` packs that are older; those packs."""
        ...

    async def find_over(self, most_bytes: int, since: datetime | None = None) -> Sequence[tuple[UserId, int]]:
        """Owners of runs with more than that, and how much more.

        With ``since`` only owners of whose runs one has left something, or has ended, since.
        """
        ...

    async def prune_oldest(self, owner_id: UserId, excess_bytes: int, most: int) -> Sequence[Pack]:
        """Remove the rows of at most ``most`` packs of an owner's oldest ended runs; those packs.

        No more than make up for the excess.
        """
        ...

    async def delete_of_runs(self, run_ids: Sequence[RunId]) -> None:
        """Remove all rows of these runs."""
        ...

    async def find_orphans(self, run_ids: Sequence[RunId]) -> Sequence[RunId]:
        """Those that are no runs of this database, in the same order."""
        ...
