"""The rules by which a run goes on: a pure function from what is and what happened to what follows.

Three phases follow one another: the steps, ``on_error`` when one of them failed or the run took too long, ``finally``
always. In a phase a step opens when all that it needs is over.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sandgate.core.errors import ExpressionError
from sandgate.core.execution import ErrorReport
from sandgate.core.run import HistoryEvent, Run, RunStatus, StepKey, StepResult, StepRun, StepStatus
from sandgate.core.workflow import Json, StepDefinition, StepType
from sandgate.workflows.conditions import foreach_items, sleep_until, wants_to_run
from sandgate.workflows.events import AttemptEnded, CancelAsked, Changes, Decided, Event, TakenOver
from sandgate.workflows.expressions import StatusFunctions
from sandgate.workflows.retries import delay_before_next, may_try_again
from sandgate.workflows.state import Graph, Phase, RunState, expression_context, has_failed, is_over

RUN_TIMED_OUT = "RunTimedOut"
_LOST = StepResult(StepStatus.FAILED, "lost", error=ErrorReport("Lost", "the process that ran it is gone", ""))


def advance(graph: Graph, state: RunState, events: Sequence[Event], now: datetime) -> Changes:
    """What follows from the events, in their order, and from the time being ``now``.

    The same arguments give the same answer. An event that comes too late, or twice, changes nothing.
    """
    work = _Advance(graph, state, now)
    if state.run.is_live:
        work.begin()
        for event in events:
            work.take(event)
        work.settle()
    return work.changes()


class _Advance:
    """The rows as they become, step by step, and what is to be done about it."""

    def __init__(self, graph: Graph, state: RunState, now: datetime) -> None:
        self._graph = graph
        self._run = state.run
        self._steps = {key: row for key, row in state.steps.items() if row.status is not StepStatus.PENDING}
        # Opened anew by a retry: as if they had never been, but that their attempts are counted on.
        self._attempts_before = {row.key: row.attempt for row in state.steps.values() if row.key not in self._steps}
        self._now = now
        self._changed: dict[StepKey, StepRun] = {}
        self._history: list[HistoryEvent] = []
        self._start: dict[StepKey, StepRun] = {}
        self._kill: dict[StepKey, None] = {}
        self._context: dict[str, Json] | None = None

    def changes(self) -> Changes:
        """Everything that follows."""
        run = replace(self._run, events=self._run.events + len(self._history))
        return Changes(run, list(self._changed.values()), self._history, list(self._start.values()), list(self._kill))

    def begin(self) -> None:
        """Note what started the run, first of all."""
        run = self._run
        if not run.events:
            at = None if run.trigger_at is None else run.trigger_at.isoformat()
            self._note("run_started", details={"trigger": run.trigger_type, "id": run.trigger_id, "at": at})

    def take(self, event: Event) -> None:
        """Take one event into the rows."""
        match event:
            case AttemptEnded(key, attempt, result):
                row = self._steps.get(key)
                if row is not None and row.status is StepStatus.RUNNING and row.attempt == attempt:
                    self._end_attempt(row, result)
            case Decided():
                self._decide(event)
            case CancelAsked(who):
                self._cancel(who)
            case TakenOver():
                for row in self._running():
                    self._end_attempt(row, _LOST)

    def settle(self) -> None:
        """Open what can be opened, until nothing more follows."""
        self._watch_time()
        while (phase := self._phase()) is not None and self._open(phase):
            pass
        if phase is None:
            self._finish()
        else:
            self._run = replace(self._run, status=self._live_status(), wake_at=self._next_wake(phase))

    # Time

    def _watch_time(self) -> None:
        deadline = self._run.deadline_at
        if deadline is not None and deadline <= self._now and self._run.error is None and self._phase() is Phase.MAIN:
            self._run = replace(self._run, error=ErrorReport(RUN_TIMED_OUT, "the run took longer than it may", ""))
            self._note("run_timed_out")
            self._halt(Phase.MAIN, StepStatus.TIMED_OUT)
        for row in [row for row in self._steps.values() if row.status is StepStatus.WAITING]:
            if row.wake_at is not None and row.wake_at <= self._now:
                self._wake(row)

    def _wake(self, row: StepRun) -> None:
        match self._graph.steps[row.step].type:
            case StepType.SLEEP:
                self._end(row, StepResult(StepStatus.SUCCEEDED, "succeeded", outputs={}))
            case StepType.APPROVAL:
                error = ErrorReport("ApprovalTimedOut", "nobody approved or rejected it in time", "")
                self._end(row, StepResult(StepStatus.TIMED_OUT, "timed_out", error=error))
            case _:
                self._begin_attempt(row)

    def _next_wake(self, phase: Phase) -> datetime | None:
        times = [row.wake_at for row in self._steps.values() if row.wake_at is not None and row.is_live]
        if phase is Phase.MAIN and self._run.deadline_at is not None and self._run.error is None:
            times.append(self._run.deadline_at)
        return min(times, default=None)

    # Endings

    @property
    def _is_halted(self) -> bool:
        """Whether nothing more of the steps is to be started."""
        return self._run.cancel_asked_at is not None or self._run.error is not None

    def _cancel(self, who: str) -> None:
        phase = self._phase()
        again = self._run.cancel_asked_at is not None
        if not again:
            self._run = replace(self._run, cancel_asked_at=self._now)
        self._note("cancel_asked", details={"by": who})
        if phase is not None:
            self._halt(phase, StepStatus.CANCELLED)
        if phase in (Phase.ON_ERROR, Phase.FINAL):
            # What tidies up runs after the first word, and is given up only when it is already under way.
            for step in self._graph.phases[phase]:
                row = self._steps.get((step.name, None))
                if row is None:
                    self._skip(step)
                elif row.items is not None and row.is_live:
                    self._keep_to_begun_items(row)

    def _keep_to_begun_items(self, parent: StepRun) -> None:
        begun = sum((parent.step, index) in self._steps for index in range(parent.items or 0))
        self._put(replace(parent, items=begun))

    def _halt(self, phase: Phase, status: StepStatus) -> None:
        """Kill what runs of a phase, and end what waits."""
        for row in [row for row in self._steps.values() if self._graph.phase_of[row.step] is phase]:
            if row.status is StepStatus.WAITING or row.key in self._start:
                # An attempt that begins in this very moment is not begun: there is nothing to kill yet.
                self._end(row, StepResult(status, status.value))
            elif row.status is StepStatus.RUNNING and row.items is None:
                self._kill[row.key] = None

    def _end_attempt(self, row: StepRun, result: StepResult) -> None:
        step = self._graph.steps[row.step]
        if self._is_halted and self._graph.phase_of[row.step] is Phase.MAIN:
            # Killed, or lost while it was to be killed anyway. What it came to before stands.
            if result.status is not StepStatus.SUCCEEDED and result.reason in ("cancelled", "lost"):
                timed_out = self._run.cancel_asked_at is None
                result = replace(result, status=StepStatus.TIMED_OUT if timed_out else StepStatus.CANCELLED)
            self._end(row, result)
        elif may_try_again(step.retry, row, result.reason):
            self._try_again(step, row, result)
        else:
            self._end(row, result)

    def _try_again(self, step: StepDefinition, row: StepRun, result: StepResult) -> None:
        row = _with_result(row, result)
        if result.reason == "lost":
            row = replace(row, losses=row.losses + 1)
        delay_s = delay_before_next(step.retry, row, result.reason)
        self._note("attempt_failed", row, {"reason": result.reason, "delay_s": delay_s})
        if delay_s > 0:
            self._put(replace(row, status=StepStatus.WAITING, wake_at=self._now + timedelta(seconds=delay_s)))
        else:
            self._begin_attempt(row)

    def _end(self, row: StepRun, result: StepResult) -> None:
        ended = replace(_with_result(row, result), status=result.status, finished_at=self._now, wake_at=None)
        self._put(ended)
        self._note(f"step_{result.status.value}", ended, {"reason": result.reason})
        if row.item is not None:
            self._end_parent(self._steps[row.step, None])

    def _end_parent(self, parent: StepRun) -> None:
        """End a step with items, if all of them have ended, or no more will be begun."""
        if not parent.is_live:
            return
        items = [row for index in range(parent.items or 0) if (row := self._steps.get((parent.step, index)))]
        halted = self._is_halted and self._graph.phase_of[parent.step] is Phase.MAIN
        if any(row.is_live for row in items) or (len(items) < (parent.items or 0) and not halted):
            return
        failed = [row for row in items if has_failed(row)]
        if failed and not halted:
            error = ErrorReport("ItemsFailed", f"{len(failed)} of {parent.items} items failed", "")
            result = StepResult(StepStatus.FAILED, "failed", error=error)
        elif len(items) == parent.items and all(row.status is StepStatus.SUCCEEDED for row in items):
            result = StepResult(StepStatus.SUCCEEDED, "succeeded")
        elif self._run.cancel_asked_at is None and halted:
            result = StepResult(StepStatus.TIMED_OUT, "timed_out")
        else:
            result = StepResult(StepStatus.CANCELLED, "cancelled")
        self._end(parent, result)

    def _decide(self, event: Decided) -> None:
        row = self._steps.get((event.step, None))
        step = self._graph.steps.get(event.step)
        if row is None or step is None or step.type is not StepType.APPROVAL or row.status is not StepStatus.WAITING:
            return
        word = {"approved": event.approved, "by": event.who, "comment": event.comment, "at": self._now.isoformat()}
        if event.approved:
            self._end(row, StepResult(StepStatus.SUCCEEDED, "succeeded", outputs=word))
            return
        error = ErrorReport(
            "Rejected", f"{event.who} rejected it" + (f": {event.comment}" if event.comment else ""), ""
        )
        self._end(row, StepResult(StepStatus.FAILED, "failed", outputs=word, error=error))

    # Beginnings

    def _phase(self) -> Phase | None:
        """The first phase that is not over; None when all are."""
        for phase, steps in self._graph.phases.items():
            if phase is Phase.ON_ERROR and not self._wants_on_error() and not self._any_live(steps):
                continue
            if not all(is_over(self._steps.get((step.name, None))) for step in steps):
                return phase
        return None

    def _any_live(self, steps: Sequence[StepDefinition]) -> bool:
        """Whether something of them has begun and has yet to die, though nothing more of them is wanted."""
        return any(row is not None and row.is_live for step in steps for row in [self._steps.get((step.name, None))])

    def _wants_on_error(self) -> bool:
        return self._run.cancel_asked_at is None and self._main_failed()

    def _main_failed(self) -> bool:
        if self._run.error is not None:
            return True
        return any(has_failed(self._steps.get((step.name, None))) for step in self._graph.phases[Phase.MAIN])

    def _open(self, phase: Phase) -> bool:
        """Open every step of the phase that can be; whether a step ended by that, so that others may open."""
        before = len(self._history)
        for step in self._graph.phases[phase]:
            row = self._steps.get((step.name, None))
            if row is None:
                if all(is_over(self._steps.get((need, None))) for need in step.needs):
                    self._open_step(step, phase)
            elif row.items is not None and row.is_live:
                self._open_items(step, row)
        return len(self._history) > before

    def _open_step(self, step: StepDefinition, phase: Phase) -> None:
        if self._is_halted and phase is Phase.MAIN:
            self._skip(step)
            return
        row = replace(self._fresh(step.name), started_at=self._now)
        try:
            if not wants_to_run(step, self._status_functions(step, phase), self._seen(), is_final=phase is Phase.FINAL):
                self._skip(step)
            elif step.foreach is None:
                self._begin(step, row)
            else:
                items = foreach_items(step, self._seen())
                self._begin_items(step, replace(row, items=len(items)))
        except ExpressionError as problem:
            self._end(
                row, StepResult(StepStatus.FAILED, "failed", error=ErrorReport("ExpressionError", str(problem), ""))
            )

    def _begin(self, step: StepDefinition, row: StepRun) -> None:
        match step.type:
            case StepType.SLEEP:
                self._wait(row, sleep_until(step, self._seen(), self._now))
            case StepType.APPROVAL:
                limit_s = step.timeout_s
                self._wait(row, None if limit_s is None else self._now + timedelta(seconds=limit_s))
            case _:
                self._begin_attempt(row)

    def _wait(self, row: StepRun, wake_at: datetime | None) -> None:
        waiting = replace(
            row, status=StepStatus.WAITING, attempt=row.attempt + 1, wake_at=wake_at, started_at=self._now
        )
        self._put(waiting)
        self._note("step_waiting", waiting)

    def _begin_items(self, step: StepDefinition, parent: StepRun) -> None:
        parent = replace(parent, status=StepStatus.RUNNING, attempt=parent.attempt + 1)
        self._put(parent)
        self._note("step_started", parent, {"items": parent.items})
        if parent.items:
            self._open_items(step, parent)
        else:
            self._end_parent(parent)

    def _open_items(self, step: StepDefinition, parent: StepRun) -> None:
        """Begin items in their order, as many at a time as may be."""
        total = parent.items or 0
        rows = [row for index in range(total) if (row := self._steps.get((step.name, index)))]
        if self._is_halted and self._graph.phase_of[step.name] is Phase.MAIN:
            self._end_parent(parent)
            return
        room = (step.max_parallel or total) - sum(row.is_live for row in rows)
        missing = (index for index in range(total) if (step.name, index) not in self._steps)
        for index in list(islice(missing, max(0, room))):
            self._begin(step, self._fresh(step.name, index))

    def _fresh(self, name: str, item: int | None = None) -> StepRun:
        before = self._attempts_before.get((name, item), 0)
        return StepRun(self._run.run_id, name, item, attempt=before, attempts_before=before)

    def _begin_attempt(self, row: StepRun) -> None:
        begun = replace(
            row,
            status=StepStatus.RUNNING,
            attempt=row.attempt + 1,
            wake_at=None,
            started_at=row.started_at or self._now,
        )
        self._put(begun)
        self._start[begun.key] = begun
        self._note("step_started", begun)

    def _skip(self, step: StepDefinition) -> None:
        row = self._fresh(step.name)
        self._end(row, StepResult(StepStatus.SKIPPED, "skipped"))

    def _status_functions(self, step: StepDefinition, phase: Phase) -> StatusFunctions:
        needed = [self._steps[need, None].status for need in step.needs]
        main_failed = self._main_failed()
        cancelled = self._run.cancel_asked_at is not None
        failed = any(has_failed(self._steps.get((name, None))) for name in self._graph.ancestors(step.name))
        if phase is Phase.FINAL:
            return StatusFunctions(not main_failed and not cancelled, main_failed or failed, cancelled)
        succeeded = all(status is StepStatus.SUCCEEDED for status in needed)
        return StatusFunctions(succeeded, failed or (phase is not Phase.MAIN and main_failed), cancelled)

    # The whole

    def _live_status(self) -> RunStatus:
        return RunStatus.RUNNING if self._running() else RunStatus.WAITING

    def _running(self) -> list[StepRun]:
        return [row for row in self._steps.values() if row.status is StepStatus.RUNNING and row.items is None]

    def _finish(self) -> None:
        run = replace(self._run, finished_at=self._now, wake_at=None)
        self._run = self._judge(run)
        self._note(f"run_{self._run.status.value}")

    def _judge(self, run: Run) -> Run:
        if run.cancel_asked_at is not None:
            return replace(run, status=RunStatus.CANCELLED)
        if run.error is not None:
            return replace(run, status=RunStatus.TIMED_OUT)
        failed = [name for name in self._graph.steps if has_failed(self._steps.get((name, None)))]
        if not failed:
            return replace(run, status=RunStatus.SUCCEEDED)
        error = ErrorReport("StepFailed", f"the step {failed[0]} failed", "")
        return replace(run, status=RunStatus.FAILED, error=error)

    def _seen(self) -> dict[str, Json]:
        if self._context is None:
            self._context = expression_context(self._graph, RunState(self._run, self._steps))
        return self._context

    def _put(self, row: StepRun) -> None:
        self._steps[row.key] = row
        self._changed[row.key] = row
        self._context = None
        if row.status is not StepStatus.RUNNING:
            self._start.pop(row.key, None)

    def _note(self, kind: str, row: StepRun | None = None, details: dict[str, Any] | None = None) -> None:
        number = self._run.events + len(self._history)
        step, item, attempt = (None, None, None) if row is None else (row.step, row.item, row.attempt)
        event = HistoryEvent(self._run.run_id, number, self._now, kind, step, item, attempt, details or {})
        self._history.append(event)


def _with_result(row: StepRun, result: StepResult) -> StepRun:
    return replace(
        row,
        outputs=result.outputs,
        error=result.error,
        stdout=result.stdout,
        stderr=result.stderr,
        exit_code=result.exit_code,
        duration_ms=result.duration_ms,
    )
