"""Rows of workflows and of their runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sandgate.core.ids import RunId, UserId, WorkflowId
from sandgate.core.page import Page, PageRequest
from sandgate.core.run import HistoryEvent, Run, RunStatus, StepRun
from sandgate.core.workflow import Json, Workflow


class WorkflowStore(Protocol):
    """Rows of workflows and of their versions."""

    async def insert(self, workflow: Workflow) -> None:
        """Add a row, and its first version."""
        ...

    async def find(self, workflow_id: WorkflowId) -> Workflow | None:
        """The row with its newest version, unless it was deleted."""
        ...

    async def find_definition(self, workflow_id: WorkflowId, version: int) -> Mapping[str, Json] | None:
        """One version as the user wrote it, also of a workflow that was deleted."""
        ...

    async def list(self, owner_id: UserId | None, name: str | None, page: PageRequest) -> Page[Workflow]:
        """A page of the workflows of an owner (None: everybody's), newest first."""
        ...

    async def replace(self, workflow: Workflow) -> bool:
        """Write the next version; False, and nothing written, unless the row has the one before."""
        ...

    async def delete(self, workflow_id: WorkflowId, at: datetime, *, even_if_live: bool) -> bool | None:
        """Delete it. None when it is not there; False, and nothing written, when a run of it lives."""
        ...


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs a list holds; None means any."""

    owner_id: UserId | None = None
    workflow_id: WorkflowId | None = None
    status: RunStatus | None = None


@dataclass(frozen=True, slots=True)
class RunChange:
    """What one transaction writes: the run's new row, the steps that changed, and what to add to its history."""

    run: Run
    steps: Sequence[StepRun] = ()
    history: Sequence[HistoryEvent] = ()


class RunStore(Protocol):
    """Rows of runs, their steps and their history."""

    async def insert(self, change: RunChange, *, under: Run | None = None) -> bool:
        """Add a run; False, and nothing written, when its workflow has been deleted.

        Also False when the run ``under`` which it is to run is not held as it says any more, or when another process
        has added it.
        """
        ...

    async def enter(self, run: Run, at: datetime) -> datetime | None:
        """Let a run of a group in, if there is room for it and for all that wait before it.

        Answers when it was let in; None while it has to wait, and when it is not held as it says any more.
        """
        ...

    async def apply(self, change: RunChange) -> bool:
        """Write a change if the row still has the fencing number and the lease's owner of ``change.run``.

        False, and nothing written, when another process has taken the run over, or when it has ended.
        """
        ...

    async def claim(self, owner: str, now: datetime, until: datetime, most: int, *, own: bool = False) -> Sequence[Run]:
        """Take live runs whose lease has run out, and with ``own`` also those that ``owner`` had before.

        Each gets the next fencing number.
        """
        ...

    async def renew(self, owner: str, until: datetime) -> frozenset[RunId]:
        """Hold what ``owner`` has until then; answers what that is."""
        ...

    async def list_held(self, owner: str) -> Sequence[RunId]:
        """The runs that have not ended and were last worked on by ``owner``."""
        ...

    async def find(self, run_id: RunId) -> Run | None:
        """The row."""
        ...

    async def find_newest(self, workflow_id: WorkflowId) -> Run | None:
        """The newest run of a workflow."""
        ...

    async def list(self, wanted: RunFilter, page: PageRequest) -> Page[Run]:
        """A page, newest first."""
        ...

    async def list_live(self, workflow_id: WorkflowId) -> Sequence[RunId]:
        """The runs of a workflow that have not ended."""
        ...

    async def list_steps(self, run_id: RunId, *, with_output: bool = True) -> Sequence[StepRun]:
        """All rows of steps; without output their ``stdout`` and ``stderr`` are empty."""
        ...

    async def list_history(self, run_id: RunId) -> Sequence[HistoryEvent]:
        """What happened, in order."""
        ...
