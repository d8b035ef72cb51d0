"""Rows of artifacts; those of an attempt are written with its result, see ``RunChange``."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sandgate.core.artifact import Artifact, ArtifactId
from sandgate.core.ids import RunId
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

    async def delete_of_runs(self, run_ids: Sequence[RunId]) -> None:
        """Remove all rows of these runs."""
        ...

    async def find_orphans(self, run_ids: Sequence[RunId]) -> Sequence[RunId]:
        """Those that are no runs of this database, in the same order."""
        ...
