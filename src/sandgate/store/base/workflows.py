"""Rows of workflows and of their runs."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sandgate.core.artifact import Artifact
from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import RunId, SignalId, UserId, WorkflowId
from sandgate.core.page import Page, PageRequest
from sandgate.core.run import HistoryEvent, Run, RunSignal, RunStatus, StepKey, StepRun
from sandgate.core.workflow import Json, Workflow


class VersionGone(Exception):
    """A run cannot begin, and nothing was written: another version of its workflow has taken the place of its own."""


class WorkflowStore(Protocol):
    """Rows of workflows and of their versions."""

    async def insert(self, workflow: Workflow, answer: KeptAnswer | None = None, *, most: int | None = None) -> bool:
        """Add a row, its first version, and what is answered about it.

        False, and nothing written, when its owner has ``most`` or more.
        """
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
        """Write the next version; False, and nothing written, unless the row has the one before.

        Versions before it that no run needs are gone then.
        """
        ...

    async def delete(
        self, workflow_id: WorkflowId, at: datetime, last_word: Callable[[RunId], RunSignal] | None = None
    ) -> bool | None:
        """Delete it, and with it say the last word to each of its runs that live.

        Its row and its versions stay for its runs, if there are any. None when it is not there; False, and nothing
        written, when a run of it lives and there is no word for it.
        """
        ...


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs a list holds; None means any."""

    owner_id: UserId | None = None
    workflow_id: WorkflowId | None = None
    statuses: frozenset[RunStatus] | None = None
    workflow_name: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunChange:
    """What one transaction writes: the run's new row, the steps that changed, what to add to its history, and the
    signals that it follows from, which are deleted. ``artifacts`` are those that attempts left whose results are among
    the steps.
    """

    run: Run
    steps: Sequence[StepRun] = ()
    history: Sequence[HistoryEvent] = ()
    signals: Sequence[SignalId] = ()
    artifacts: Sequence[Artifact] = ()


@dataclass(frozen=True, slots=True)
class ShownSteps:
    """Rows of steps, and of which of them the output is left out: ``stdout``, ``stderr``, ``outputs``, a long error."""

    steps: Sequence[StepRun]
    omitted: frozenset[StepKey] = frozenset()


class RunStore(Protocol):
    """Rows of runs, their steps and their history.

    Leases are timed by the clock of the database where several processes can share it (PostgreSQL), and by the
    caller's ``now`` where one process has it for itself (SQLite).
    """

    @property
    def is_shared(self) -> bool:
        """Whether other processes may work on runs of the same database."""
        ...

    async def insert(
        self,
        change: RunChange,
        lease_s: float | None = None,
        *,
        under: Run | None = None,
        answer: KeptAnswer | None = None,
    ) -> bool:
        """Add a run, held for ``lease_s`` (None: as its row says), with what is answered about it.

        False, and nothing written, when its workflow has been deleted, when the run ``under`` which it is to run is not
        held as it says any more, and when another process has added it. Raises ``VersionGone``.
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

    async def reopen(self, change: RunChange, lease_s: float, answer: KeptAnswer | None = None) -> bool:
        """Write a change that makes an ended run live again, held by the owner in ``change.run`` for ``lease_s``.

        Its fencing number has to be one more than that of the row; False, and nothing written, when it is not, when
        the run is live, or when its workflow has been deleted.
        """
        ...

    async def claim(self, owner: str, now: datetime, lease_s: float, most: int, *, own: bool = False) -> Sequence[Run]:
        """Take live runs whose lease has run out, and with ``own`` also those that ``owner`` had before.

        Each gets the next fencing number, and a lease of ``lease_s``.
        """
        ...

    async def renew(self, owner: str, now: datetime, lease_s: float) -> frozenset[RunId]:
        """Hold what ``owner`` has for another ``lease_s``; answers what that is."""
        ...

    async def release(self, owner: str, run_ids: Collection[RunId]) -> None:
        """Let the leases of these runs run out, as far as ``owner`` has them."""
        ...

    async def find_free_in_s(self, owner: str, now: datetime) -> float | None:
        """In how many seconds the first lease of anybody else runs out (0 or less: now); None when there is none."""
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

    async def measure_printed(self, run_id: RunId) -> Mapping[tuple[str, int | None], int]:
        """How much is kept of what its steps and their items have printed, in bytes, of those that have."""
        ...

    async def show_steps(self, run_id: RunId) -> ShownSteps:
        """All rows of steps, with as much output as one answer may hold: the smallest first."""
        ...

    async def find_step(self, run_id: RunId, step: str, item: int | None) -> StepRun | None:
        """One row of a step, or of one of its items."""
        ...

    async def list_history(self, run_id: RunId, first: int = 0, most: int | None = None) -> Sequence[HistoryEvent]:
        """What happened, in order, from the entry with the number ``first`` on.

        At most so many entries, and fewer when these are as much as one answer may hold; without ``most``, all.
        """
        ...

    async def find_beginning(self, run_id: RunId, step: str, item: int | None, attempt: int) -> int | None:
        """The number of the entry of the history that began an attempt."""
        ...
