"""The rules by which a run goes on: a pure function from what is and what happened to what follows.

Three phases follow one another: the steps, ``on_error`` when one of them failed or the run took too long, ``finally``
always. In a phase a step opens when all that it needs is over.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sandgate.core.clock import show_time
from sandgate.core.errors import ExpressionError
from sandgate.core.execution import ErrorReport
from sandgate.core.run import Run, RunStatus, StepKey, StepResult, StepRun, StepStatus
from sandgate.core.workflow import StepType
from sandgate.workflows.beginnings import open_steps, skip
from sandgate.workflows.conditions import run_outputs, sleep_limit
from sandgate.workflows.endings import begin_attempt, end, end_attempt, explain_failure, halt, keep_to_begun_items
from sandgate.workflows.events import AttemptEnded, CancelAsked, Changes, Decided, Entered, Event, TakenOver
from sandgate.workflows.ledger import ROW_WORK, Ledger, is_waiting
from sandgate.workflows.state import Graph, Phase, RunState, is_approvable

RUN_TIMED_OUT = "RunTimedOut"
_RUN_TOO_LATE = ErrorReport(RUN_TIMED_OUT, "the run took longer than it may", "")
_LOST = StepResult(StepStatus.FAILED, "lost", error=ErrorReport("Lost", "the process that ran it is gone", ""))


def advance(graph: Graph, state: RunState, events: Sequence[Event], now: datetime) -> Changes:
    """What follows from the events, in their order, and from the time being ``now``.

    The same arguments give the same answer. An event that comes too late, or twice, changes nothing.
    """
    ledger = Ledger(graph, state, now)
    if state.run.is_live:
        _begin(ledger)
        for event in events:
            _take(ledger, event)
        _settle(ledger)
    return ledger.changes()


def _begin(ledger: Ledger) -> None:
    """Note what started the run, first of all."""
    run = ledger.run
    if not run.events:
        at = None if run.trigger_at is None else show_time(run.trigger_at)
        ledger.note("run_started", details={"trigger": run.trigger_type, "id": run.trigger_id, "at": at})


def _take(ledger: Ledger, event: Event) -> None:
    match event:
        case AttemptEnded((step, item), attempt, result):
            row = ledger.find(step, item)
            if row is not None and row.is_under_way and row.attempt == attempt:
                ledger.keep(result.artifacts)
                end_attempt(ledger, row, result)
        case Decided():
            _decide(ledger, event)
        case CancelAsked(who):
            _cancel(ledger, who)
        case Entered(at):
            ledger.run = replace(ledger.run, started_at=ledger.run.started_at or at)
        case TakenOver(kept):
            _take_over(ledger, kept)


def _take_over(ledger: Ledger, kept: Collection[StepKey]) -> None:
    """What ran is lost but what was kept; runs below this one live on, and what was to be killed still is."""
    for row in ledger.under_way():
        if row.child_run_id is None and row.key not in kept:
            end_attempt(ledger, row, _LOST)
            continue
        ledger.resume(row)
        if ledger.is_halted_for(row.step):
            ledger.kill[row.key] = None


def _settle(ledger: Ledger) -> None:
    """Open what can be opened, until nothing more follows or it is the turn of others; then this one comes again."""
    if ledger.run.waits_for_slot and not _gives_up_waiting(ledger):
        ledger.run = replace(ledger.run, wake_at=ledger.run.deadline_at)
        return
    if ledger.run.status is RunStatus.PENDING:
        ledger.run = _with_deadline(ledger.run, ledger.graph.definition.timeout_s)
    _watch_time(ledger)
    while (phase := _phase(ledger)) is not None and not ledger.is_spent and open_steps(ledger, phase):
        pass
    if phase is None:
        _finish(ledger)
    else:
        ledger.run = replace(ledger.run, status=_live_status(ledger), wake_at=_next_wake(ledger, phase))


def _phase(ledger: Ledger) -> Phase | None:
    """The phase to work on; what was for a failure is skipped once there was none."""
    phase = ledger.phase()
    if phase in (Phase.FINAL, None):
        for step in ledger.graph.phases[Phase.ON_ERROR]:
            if ledger.find(step.name) is None:
                skip(ledger, step)
    return phase


def _with_deadline(run: Run, limit_s: float | None) -> Run:
    """The run, to be over within the limit from its start; one that was set before holds too."""
    if limit_s is None or run.started_at is None:
        return run
    deadline_at = run.started_at + timedelta(seconds=limit_s)
    return replace(run, deadline_at=min(deadline_at, run.deadline_at or deadline_at))


def _gives_up_waiting(ledger: Ledger) -> bool:
    """Whether a run that has not been let in is over all the same: nothing of it ran, so that nothing tidies up."""
    run = ledger.run
    late = run.deadline_at is not None and run.deadline_at <= ledger.now
    if run.cancel_asked_at is not None:
        late = False
    elif not late:
        return False
    else:
        ledger.run = replace(run, error=_RUN_TOO_LATE)
        ledger.note("run_timed_out")
    for phase, steps in ledger.graph.phases.items():
        for step in steps if phase is not Phase.ON_ERROR or late else ():
            skip(ledger, step)
    return True


# Time


def _watch_time(ledger: Ledger) -> None:
    deadline = ledger.run.deadline_at
    late = deadline is not None and deadline <= ledger.now
    if late and ledger.run.error is None and ledger.phase() is Phase.MAIN:
        ledger.run = replace(ledger.run, error=_RUN_TOO_LATE)
        ledger.note("run_timed_out")
        halt(ledger, Phase.MAIN, StepStatus.TIMED_OUT)
    if _is_too_late_to_tidy(ledger):
        halt(ledger, ledger.phase() or Phase.FINAL, StepStatus.TIMED_OUT)
    for row in filter(is_waiting, ledger.rows()):
        if row.wake_at is not None and row.wake_at <= ledger.now and not ledger.is_spent:
            ledger.spend(ROW_WORK)
            _wake(ledger, row)


def _is_too_late_to_tidy(ledger: Ledger) -> bool:
    """Whether the end of the time for tidying up has come since the run was last looked at: it is killed once."""
    tidy_until, woken_at = ledger.run.tidy_until, ledger.run.wake_at
    if tidy_until is None or woken_at is None or ledger.phase() in (Phase.MAIN, None):
        return False
    return woken_at <= tidy_until <= ledger.now


def _wake(ledger: Ledger, row: StepRun) -> None:
    step = ledger.graph.steps[row.step]
    match step.type:
        case StepType.SLEEP if row.started_at and row.wake_at == sleep_limit(step, row.started_at):
            error = ErrorReport("TimedOut", "the step took longer than it may", "")
            end(ledger, row, StepResult(StepStatus.TIMED_OUT, "timed_out", error=error))
        case StepType.SLEEP:
            end(ledger, row, StepResult(StepStatus.SUCCEEDED, "succeeded", outputs={}))
        case StepType.APPROVAL:
            error = ErrorReport("ApprovalTimedOut", "nobody approved or rejected it in time", "")
            end(ledger, row, StepResult(StepStatus.TIMED_OUT, "timed_out", error=error))
        case _:
            begin_attempt(ledger, row)


def _next_wake(ledger: Ledger, phase: Phase) -> datetime | None:
    if ledger.is_spent:
        return ledger.now
    times = [row.wake_at for row in ledger.rows() if row.wake_at is not None and row.is_live]
    if phase is Phase.MAIN and ledger.run.deadline_at is not None and ledger.run.error is None:
        times.append(ledger.run.deadline_at)
    tidy_until = ledger.run.tidy_until
    if phase is not Phase.MAIN and tidy_until is not None and tidy_until > ledger.now:
        times.append(tidy_until)
    return min(times, default=None)


# People


def _cancel(ledger: Ledger, who: str) -> None:
    phase = ledger.phase()
    if ledger.run.cancel_asked_at is None:
        ledger.run = replace(ledger.run, cancel_asked_at=ledger.now)
    ledger.note("cancel_asked", details={"by": who})
    if phase is not None:
        halt(ledger, phase, StepStatus.CANCELLED)
    if phase in (Phase.ON_ERROR, Phase.FINAL):
        # What tidies up runs after the first word, and is given up only when it is already under way.
        for step in ledger.graph.phases[phase]:
            row = ledger.find(step.name)
            if row is None:
                skip(ledger, step)
            elif row.items is not None and row.is_live:
                keep_to_begun_items(ledger, row)


def _decide(ledger: Ledger, event: Decided) -> None:
    row = ledger.find(event.step, event.item)
    if row is None or not is_approvable(ledger.graph, row):
        return
    asked = dict(row.outputs or {})
    word = asked | {"approved": event.approved, "by": event.who, "comment": event.comment, "at": show_time(ledger.now)}
    if event.approved:
        end(ledger, row, StepResult(StepStatus.SUCCEEDED, "succeeded", outputs=word))
        return
    text = f"{event.who} rejected it" + (f": {event.comment}" if event.comment else "")
    error = ErrorReport("Rejected", text, "")
    end(ledger, row, StepResult(StepStatus.FAILED, "failed", outputs=word, error=error))


# The whole


def _live_status(ledger: Ledger) -> RunStatus:
    running = any(row.status is StepStatus.RUNNING for row in ledger.under_way())
    return RunStatus.RUNNING if running else RunStatus.WAITING


def _finish(ledger: Ledger) -> None:
    ledger.run = _judge(ledger, replace(ledger.run, finished_at=ledger.now, wake_at=None))
    ledger.note(f"run_{ledger.run.status.value}")


def _judge(ledger: Ledger, run: Run) -> Run:
    if run.cancel_asked_at is not None:
        return replace(run, status=RunStatus.CANCELLED)
    if run.error is not None:
        return replace(run, status=RunStatus.TIMED_OUT)
    failed = [name for name in ledger.graph.steps if ledger.any_failed((name,))]
    if failed:
        error = ErrorReport("StepFailed", explain_failure(ledger, failed[0]), "")
        return replace(run, status=RunStatus.FAILED, error=error)
    try:
        outputs = run_outputs(ledger.graph.definition, ledger.seen())
    except ExpressionError as problem:
        error = ErrorReport("OutputsInvalid", problem.message, "")
        return replace(run, status=RunStatus.FAILED, error=error)
    return replace(run, status=RunStatus.SUCCEEDED, outputs=outputs)
