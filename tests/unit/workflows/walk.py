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
from sandgate.workflows.events import AttemptEnded, Changes, Decided, Entered, Event
from sandgate.workflows.state import Graph, RunState, is_approvable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUCCEEDED = StepResult(StepStatus.SUCCEEDED, "succeeded", outputs={})
FAILED = StepResult(StepStatus.FAILED, "failed")
TIMED_OUT = StepResult(StepStatus.TIMED_OUT, "timed_out")
LOST = StepResult(StepStatus.FAILED, "lost")
CANCELLED = StepResult(StepStatus.CANCELLED, "cancelled")


def a_step(name: str, *needs: str, **changes: Any) -> StepDefinition:
    """A step with code."""
    return replace(StepDefinition(name, StepType.CODE_EXECUTION, needs, {"code": "pass"}), **changes)


def a_sleep(name: str, *needs: str, **changes: Any) -> StepDefinition:
    """A step that sleeps."""
    config = changes.pop("config", {"seconds": 1})
    return a_step(name, *needs, type=StepType.SLEEP, config=config, **changes)


def an_approval(name: str, *needs: str, **changes: Any) -> StepDefinition:
    """A step that somebody approves."""
    return a_step(name, *needs, type=StepType.APPROVAL, config={}, **changes)


def a_child(name: str, *needs: str, **changes: Any) -> StepDefinition:
    """A step that starts a workflow."""
    return a_step(name, *needs, type=StepType.WORKFLOW, config={"workflow_id": "self"}, **changes)


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
        takes_turns = self.definition.concurrency_group is not None
        self.run = Run(
            RunId("run-1"), WorkflowId("workflow-1"), UserId("user-1"), "w", 1, RunStatus.PENDING, self.now,
            inputs=self.inputs, started_at=None if takes_turns else self.now, slot_group="g" if takes_turns else None,
        )  # fmt: skip

    def feed(self, *events: Event) -> Changes:
        """Advance, and do to the rows what follows."""
        before = RunState(self.run, dict(self.steps))
        changes = advance(self.graph, before, events, self.now)
        assert changes == advance(self.graph, before, events, self.now)
        for row in changes.steps:
            self._put(row)
        begun = {row.key for row in changes.start if row.child_run_id is None}
        assert not begun & set(changes.kill), "what is killed is not started after that; runs are found again"
        for row in changes.start:
            assert self.steps[row.key] == row
            self.running[row.key] = row
        self.killed += changes.kill
        self.history += changes.history
        self.run = changes.run
        assert [event.number for event in self.history] == list(range(self.run.events))
        self._check_bounds()
        return changes

    def _check_bounds(self) -> None:
        """No more items of a step have begun and not ended than may at once; one that is open again has not."""
        begun = [row for row in self.steps.values() if row.is_live and row.status is not StepStatus.PENDING]
        for step, count in Counter(row.step for row in begun if row.item is not None).items():
            most = self.graph.steps[step].max_parallel
            assert most is None or count <= most, f"{count} items of {step} are under way, {most} may be"

    def _put(self, row: StepRun) -> None:
        old = self.steps.get(row.key)
        assert row.status in STEP_TRANSITIONS[old.status if old else StepStatus.PENDING] or row.items is not None
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

    def undecided(self) -> Sequence[StepKey]:
        """What waits for somebody to decide."""
        return [key for key, row in self.steps.items() if is_approvable(self.graph, row)]

    def decide(self, key: StepKey, approved: bool) -> Changes:
        """Approve or reject."""
        return self.feed(Decided(key[0], approved, "somebody", item=key[1]))

    def play(self, outcome: Callable[[StepRun], StepResult], choose: Callable[[int], int] = lambda _count: 0) -> None:
        """Go on to the end: attempts end and words are given in the chosen order, each in the given way."""
        self.feed()
        if self.run.waits_for_slot:
            self.feed(Entered(self.now))
        for _ in range(10_000):
            if not self.run.is_live:
                return
            keys = [*self.running, *self.undecided()]
            if keys:
                self._move(keys[choose(len(keys))], outcome)
            else:
                self.wait()
        raise AssertionError("the run does not end")

    def _move(self, key: StepKey, outcome: Callable[[StepRun], StepResult]) -> None:
        if key in self.running:
            self.end(key, CANCELLED if key in self.killed else outcome(self.running[key]))
        else:
            self.decide(key, outcome(self.steps[key]) == SUCCEEDED)

    def wait(self) -> Changes:
        """Let time go by until something is due."""
        assert self.run.wake_at is not None, "nothing runs and nothing will"
        self.now = max(self.now, self.run.wake_at)
        return self.feed()

    def statuses(self) -> dict[str, StepStatus]:
        """How each step that has a row stands."""
        return {name: row.status for (name, item), row in self.steps.items() if item is None}

    def words(self) -> Sequence[str]:
        """The history, as words."""
        return [f"{event.kind}:{event.step}" if event.step else event.kind for event in self.history]
