"""A run that is played through in memory: what advances it, what it came to, and how often each step did."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sandgate.core.ids import RunId, UserId, WorkflowId
from sandgate.core.run import STEP_TRANSITIONS, HistoryEvent, Run, RunStatus, StepKey, StepResult, StepRun, StepStatus
from sandgate.core.workflow import StepDefinition, StepType, WorkflowDefinition
from sandgate.workflows.advance import advance
from sandgate.workflows.events import AttemptEnded, Changes, Event
from sandgate.workflows.state import Graph, RunState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUCCEEDED = StepResult(StepStatus.SUCCEEDED, "succeeded", outputs={})
FAILED = StepResult(StepStatus.FAILED, "failed")
TIMED_OUT = StepResult(StepStatus.TIMED_OUT, "timed_out")
LOST = StepResult(StepStatus.FAILED, "lost")
CANCELLED = StepResult(StepStatus.CANCELLED, "cancelled")


def a_step(name: str, *needs: str, **changes: Any) -> StepDefinition:
    """A step with code."""
    return replace(StepDefinition(name, StepType.CODE_EXECUTION, needs, {"code": "pass"}), **changes)


def a_definition(*steps: StepDefinition, **changes: Any) -> WorkflowDefinition:
    """A definition of these steps."""
    return replace(WorkflowDefinition("w", steps), **changes)


@dataclass
class Walk:
    """A run and its rows, brought forward by hand; checks with every change that rows move as they may."""

    definition: WorkflowDefinition
    inputs: dict[str, Any] = field(default_factory=dict)
    now: datetime = NOW
    steps: dict[StepKey, StepRun] = field(default_factory=dict)
    running: dict[StepKey, StepRun] = field(default_factory=dict)
    killed: list[StepKey] = field(default_factory=list)
    history: list[HistoryEvent] = field(default_factory=list)
    endings: Counter[StepKey] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.graph = Graph(self.definition)
        timeout_s = self.definition.timeout_s
        deadline = None if timeout_s is None else self.now + timedelta(seconds=timeout_s)
        self.run = Run(
            RunId("run-1"), WorkflowId("workflow-1"), UserId("user-1"), "w", 1, RunStatus.RUNNING, self.now,
            inputs=self.inputs, started_at=self.now, deadline_at=deadline,
        )  # fmt: skip

    def feed(self, *events: Event) -> Changes:
        """Advance, and do to the rows what follows."""
        before = RunState(self.run, dict(self.steps))
        changes = advance(self.graph, before, events, self.now)
        assert changes == advance(self.graph, before, events, self.now)
        for row in changes.steps:
            self._put(row)
        assert not {row.key for row in changes.start} & set(changes.kill), "what is killed is not started after that"
        for row in changes.start:
            assert self.steps[row.key] == row
            self.running[row.key] = row
        self.killed += changes.kill
        self.history += changes.history
        self.run = changes.run
        assert [event.number for event in self.history] == list(range(self.run.events))
        return changes

    def _put(self, row: StepRun) -> None:
        old = self.steps.get(row.key)
        assert row.status in STEP_TRANSITIONS[old.status if old else StepStatus.PENDING] or row.items is not None
        if row.status is StepStatus.RUNNING or not row.is_live:
            self.running.pop(row.key, None)
        self.endings[row.key] += not row.is_live
        self.steps[row.key] = row

    def end(self, key: StepKey, result: StepResult) -> Changes:
        """End an attempt that runs."""
        row = self.running[key]
        return self.feed(AttemptEnded(key, row.attempt, result))

    def pass_time(self, seconds: float) -> Changes:
        """Let time go by."""
        self.now += timedelta(seconds=seconds)
        return self.feed()

    def play(self, outcome: Callable[[StepRun], StepResult], choose: Callable[[int], int] = lambda _count: 0) -> None:
        """Go on to the end: attempts end in the chosen order, each in the given way."""
        self.feed()
        for _ in range(10_000):
            if not self.run.is_live:
                return
            if self.running:
                keys = list(self.running)
                key = keys[choose(len(keys))]
                self.end(key, CANCELLED if key in self.killed else outcome(self.running[key]))
            else:
                assert self.run.wake_at is not None, "nothing runs and nothing will"
                self.now = max(self.now, self.run.wake_at)
                self.feed()
        raise AssertionError("the run does not end")

    def statuses(self) -> dict[str, StepStatus]:
        """How each step that has a row stands."""
        return {name: row.status for (name, item), row in self.steps.items() if item is None}

    def words(self) -> Sequence[str]:
        """The history, as words."""
        return [f"{event.kind}:{event.step}" if event.step else event.kind for event in self.history]
