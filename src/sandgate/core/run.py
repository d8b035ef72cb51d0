"""A run of a workflow, its steps, and what happened to them: the rows that the engine works from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sandgate.core.artifact import Artifact
from sandgate.core.execution import ErrorReport
from sandgate.core.ids import RunId, SignalId, UserId, WorkflowId
from sandgate.core.trigger import TriggerType
from sandgate.core.workflow import Json


class RunStatus(StrEnum):
    """Where a run is in its life. ``waiting``: nothing of it works now; a timer or a person takes it on."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


class StepStatus(StrEnum):
    """Where a step, or an item of one, is in its life."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"


LIVE_RUN_STATUSES = frozenset({RunStatus.PENDING, RunStatus.RUNNING, RunStatus.WAITING})
LIVE_STEP_STATUSES = frozenset({StepStatus.PENDING, StepStatus.RUNNING, StepStatus.WAITING})
FAILED_STEP_STATUSES = frozenset({StepStatus.FAILED, StepStatus.TIMED_OUT})

_ENDED_RUNS = frozenset(RunStatus) - LIVE_RUN_STATUSES
_ENDED_STEPS = frozenset(StepStatus) - LIVE_STEP_STATUSES

RUN_TRANSITIONS: Mapping[RunStatus, frozenset[RunStatus]] = {
    RunStatus.PENDING: frozenset({RunStatus.RUNNING, RunStatus.WAITING}) | _ENDED_RUNS,
    RunStatus.RUNNING: frozenset({RunStatus.WAITING}) | _ENDED_RUNS,
    RunStatus.WAITING: frozenset({RunStatus.RUNNING}) | _ENDED_RUNS,
    **{status: frozenset() for status in _ENDED_RUNS},
}

STEP_TRANSITIONS: Mapping[StepStatus, frozenset[StepStatus]] = {
    StepStatus.PENDING: frozenset({StepStatus.RUNNING, StepStatus.WAITING}) | _ENDED_STEPS,
    StepStatus.RUNNING: frozenset({StepStatus.RUNNING, StepStatus.WAITING}) | _ENDED_STEPS,
    StepStatus.WAITING: frozenset({StepStatus.RUNNING, StepStatus.WAITING}) | _ENDED_STEPS,
    **{status: frozenset() for status in _ENDED_STEPS},
}

# What a retry may do to a run that has ended, and to its steps; a step whose items go on is running at once.
RUN_REOPENINGS: Mapping[RunStatus, frozenset[RunStatus]] = {
    RunStatus.SUCCEEDED: frozenset(),
    **{status: frozenset(RunStatus) for status in _ENDED_RUNS - {RunStatus.SUCCEEDED}},
}
STEP_REOPENINGS: Mapping[StepStatus, frozenset[StepStatus]] = {
    status: frozenset({StepStatus.PENDING, StepStatus.RUNNING}) for status in _ENDED_STEPS
}

# Source: GitHub Actions gives what runs after the end of a job's time as long.
_TIDYING = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Run:
    """A run's row. It keeps the version of the workflow that it started with.

    ``events`` counts the entries of its history. ``fence`` and the lease say which process works on it: nobody else
    may write while ``lease_until`` is ahead, and nobody with an older ``fence`` ever again.

    A run with a ``slot_group`` starts when fewer than ``slot_limit`` runs of its owner's group are under way; until
    then it has no ``started_at``. A child run has the run and the step that started it, and its ``depth`` counts the
    runs above it. The three of the trigger say what started it; ``trigger_at`` is the tick of a schedule.

    ``templates`` has the version that each built template which its steps name had when the run began, by that name.
    """

    run_id: RunId
    workflow_id: WorkflowId
    owner_id: UserId
    workflow_name: str
    workflow_version: int
    status: RunStatus
    created_at: datetime
    inputs: Mapping[str, Json] = field(default_factory=dict)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    wake_at: datetime | None = None
    cancel_asked_at: datetime | None = None
    error: ErrorReport | None = None
    events: int = 0
    fence: int = 1
    lease_owner: str | None = None
    lease_until: datetime | None = None
    outputs: Mapping[str, Json] | None = None
    parent_run_id: RunId | None = None
    parent_step: str | None = None
    depth: int = 0
    slot_group: str | None = None
    slot_limit: int | None = None
    trigger_type: TriggerType = TriggerType.API
    trigger_id: str | None = None
    trigger_at: datetime | None = None
    templates: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.status in LIVE_RUN_STATUSES

    @property
    def tidy_until(self) -> datetime | None:
        """Until when a run with a time limit may tidy up; None: as long as that takes."""
        return None if self.deadline_at is None else self.deadline_at + _TIDYING

    @property
    def waits_for_slot(self) -> bool:
        """Whether it has not been let in yet."""
        return self.is_live and self.started_at is None


StepKey = tuple[str, int | None]
"""A step's name, and the index of one of its items or None for the step as a whole."""


@dataclass(frozen=True, slots=True)
class StepRun:
    """A step of a run, or one item of a step with ``foreach``. A step without a row is ``pending``.

    ``attempt`` counts from 1. ``losses`` counts attempts that ended because the machine did, not the code;
    ``attempts_before`` those before the run was last retried. A row that is ``pending`` was opened anew by a retry.
    ``wake_at`` is when a waiting step goes on, or when it is given up. ``child_run_id`` is the run that its attempt
    is, in a step that starts a workflow; such an attempt is under way while the step is ``waiting``.
    """

    run_id: RunId
    step: str
    item: int | None = None
    status: StepStatus = StepStatus.PENDING
    attempt: int = 0
    losses: int = 0
    items: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    wake_at: datetime | None = None
    duration_ms: int | None = None
    exit_code: int | None = None
    outputs: Mapping[str, Json] | None = None
    error: ErrorReport | None = None
    stdout: str = ""
    stderr: str = ""
    attempts_before: int = 0
    child_run_id: RunId | None = None

    @property
    def key(self) -> StepKey:
        """What tells it from others of its run."""
        return (self.step, self.item)

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.status in LIVE_STEP_STATUSES

    @property
    def is_under_way(self) -> bool:
        """Whether an attempt of it has begun and not ended. A step with items has attempts only in these."""
        is_child = self.status is StepStatus.WAITING and self.child_run_id is not None
        return is_child or (self.status is StepStatus.RUNNING and self.items is None)


@dataclass(frozen=True, slots=True)
class StepResult:
    """How an attempt ended. ``reason`` is the word that ``retry.on`` knows it by, or ``succeeded``.

    ``artifacts`` are the files that it left; they are on the disk.
    """

    status: StepStatus
    reason: str
    outputs: Mapping[str, Json] | None = None
    error: ErrorReport | None = None
    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None
    duration_ms: int | None = None
    artifacts: tuple[Artifact, ...] = ()


def measure_printed(row: StepRun | StepResult) -> int:
    """How many bytes what it has printed takes, as UTF-8, in which it is kept."""
    return sum(
        # Most is no more than that, and it is known without a look at it.
        len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        for text in (row.stdout, row.stderr)
    )


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """Something that happened to a run, or to one of its steps; ``number`` counts from 0."""

    run_id: RunId
    number: int
    at: datetime
    kind: str
    step: str | None = None
    item: int | None = None
    attempt: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class SignalKind(StrEnum):
    """What somebody asks of a run."""

    CANCEL = "cancel"
    DECIDE = "decide"


@dataclass(frozen=True, slots=True)
class RunSignal:
    """A durable word to whichever process works on a run; it is gone once what follows from it is written."""

    signal_id: SignalId
    run_id: RunId
    kind: SignalKind
    created_at: datetime
    body: Mapping[str, Any] = field(default_factory=dict)
