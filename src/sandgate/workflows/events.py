"""What can happen to a run, and what follows from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from sandgate.core.artifact import Artifact
from sandgate.core.run import HistoryEvent, Run, StepKey, StepResult, StepRun


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """An attempt of a step has ended."""

    key: StepKey
    attempt: int
    result: StepResult


@dataclass(frozen=True, slots=True)
class Decided:
    """Somebody approved a step, or one item of it, that waits for it, or rejected it."""

    step: str
    approved: bool
    who: str
    comment: str = ""
    item: int | None = None


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """Somebody wants the run to end."""

    who: str


@dataclass(frozen=True, slots=True)
class Entered:
    """The run's group had room for it at that time."""

    at: datetime


@dataclass(frozen=True, slots=True)
class TakenOver:
    """The process that worked on the run is gone, and with it whatever ran but the runs below it and what was kept."""

    kept: frozenset[StepKey] = frozenset()


Event: TypeAlias = AttemptEnded | Decided | CancelAsked | Entered | TakenOver


@dataclass(frozen=True, slots=True)
class Changes:
    """What follows: rows to write together, and then attempts to start and to kill.

    ``output_bytes`` is how long the outputs are, as JSON, of those rows that have some of an attempt.
    """

    run: Run
    steps: Sequence[StepRun]
    history: Sequence[HistoryEvent]
    start: Sequence[StepRun]
    kill: Sequence[StepKey]
    artifacts: Sequence[Artifact] = ()
    output_bytes: Mapping[StepKey, int] = field(default_factory=dict)

    @property
    def wake_at(self) -> datetime | None:
        """When to look again, if nothing happens before."""
        return self.run.wake_at
