"""How steps begin: attempts, waits, items, and what opens once all that it needs is over."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from sandgate.core.errors import ExpressionError
from sandgate.core.execution import ErrorReport
from sandgate.core.run import StepResult, StepRun, StepStatus
from sandgate.core.workflow import StepDefinition, StepType
from sandgate.workflows.conditions import MOST_ITEMS_OF_RUN, approval_question, sleep_limit, sleep_until, wants_to_run
from sandgate.workflows.endings import begin_attempt, end, end_parent
from sandgate.workflows.expressions import StatusFunctions
from sandgate.workflows.ledger import ROW_WORK, Ledger
from sandgate.workflows.state import Phase

_LOOK_WORK = 10
# Reading the text of an expression takes so many times as long as a unit of work for each of its characters.
_TEXT_WORK = 4


def open_steps(ledger: Ledger, phase: Phase) -> bool:
    """Open every step of the phase that can be, while it is this run's turn; whether one ended by that, so that others
    may open.
    """
    before, looked_at = ledger.noted, 0
    for step in ledger.graph.phases[phase]:
        if ledger.is_spent:
            return False
        row = ledger.find(step.name)
        looked_at += _LOOK_WORK + len(step.needs)
        if row is None:
            if ledger.are_over(step.needs):
                _open_step(ledger, step, phase)
        elif row.items is not None and row.is_live:
            _open_items(ledger, step, row)
    ledger.spend(looked_at)
    return ledger.noted > before


def skip(ledger: Ledger, step: StepDefinition) -> None:
    """End a step that is not to run."""
    end(ledger, ledger.fresh(step.name), StepResult(StepStatus.SKIPPED, "skipped"))


def _open_step(ledger: Ledger, step: StepDefinition, phase: Phase) -> None:
    if ledger.is_halted_for(step.name):
        skip(ledger, step)
        return
    row = replace(ledger.fresh(step.name), started_at=ledger.now)
    ledger.spend(ROW_WORK + _TEXT_WORK * len(step.condition or ""))
    try:
        status = _status_functions(ledger, step, phase)
        if not wants_to_run(step, status, ledger.seen(), ledger.work(), is_final=phase is Phase.FINAL):
            skip(ledger, step)
        elif step.foreach is None:
            _begin(ledger, step, row)
        else:
            items = len(ledger.elements(step))
            _check_items(ledger, items)
            _begin_items(ledger, step, replace(row, items=items))
    except ExpressionError as problem:
        _end_without_value(ledger, row, problem)


def _check_items(ledger: Ledger, more: int) -> None:
    """Raises ``ExpressionError`` for more items than a run may have."""
    rows = (ledger.find(name) for name in ledger.graph.steps)
    total = more + sum(row.items or 0 for row in rows if row is not None)
    if total > MOST_ITEMS_OF_RUN:
        text = f"foreach has {more} items, which makes {total} of this run; {MOST_ITEMS_OF_RUN} is the most"
        raise ExpressionError(text, 0)


def _end_without_value(ledger: Ledger, row: StepRun, problem: ExpressionError) -> None:
    error = ErrorReport("ExpressionError", problem.message, "")
    end(ledger, row, StepResult(StepStatus.FAILED, "failed", error=error))


def _begin(ledger: Ledger, step: StepDefinition, row: StepRun) -> None:
    """Raises ``ExpressionError``."""
    match step.type:
        case StepType.SLEEP:
            moment = sleep_until(step, ledger.seen(step, row.item), ledger.now, ledger.work())
            limit = sleep_limit(step, ledger.now)
            _wait(ledger, row, moment if limit is None else min(moment, limit))
        case StepType.APPROVAL:
            limit_s = step.timeout_s
            row = replace(row, outputs=approval_question(step, ledger.seen(step, row.item), ledger.work()))
            _wait(ledger, row, None if limit_s is None else ledger.now + timedelta(seconds=limit_s))
        case _:
            begin_attempt(ledger, row)


def _wait(ledger: Ledger, row: StepRun, wake_at: datetime | None) -> None:
    waiting = replace(row, status=StepStatus.WAITING, attempt=row.attempt + 1, wake_at=wake_at, started_at=ledger.now)
    ledger.put(waiting)
    ledger.note("step_waiting", waiting, dict(waiting.outputs or {}))


def _begin_items(ledger: Ledger, step: StepDefinition, parent: StepRun) -> None:
    parent = replace(parent, status=StepStatus.RUNNING, attempt=parent.attempt + 1)
    ledger.put(parent)
    ledger.note("step_started", parent, {"items": parent.items})
    if parent.items:
        _open_items(ledger, step, parent)
    else:
        end_parent(ledger, parent)


def _open_items(ledger: Ledger, step: StepDefinition, parent: StepRun) -> None:
    """Begin items in their order, as many at a time as may be, while it is this run's turn."""
    total = parent.items or 0
    if ledger.is_halted_for(step.name):
        end_parent(ledger, parent)
        return
    room = (step.max_parallel or total) - ledger.count_live(step.name)
    if room <= 0 or ledger.count_begun(step.name) == total:
        return
    missing = (index for index in range(total) if ledger.find(step.name, index) is None)
    # What an attempt or a request is given is looked at when that begins, elsewhere.
    is_read = step.type in (StepType.SLEEP, StepType.APPROVAL)
    text_work = _TEXT_WORK * sum(len(text) for text in step.config.values() if isinstance(text, str)) * is_read
    for index in list(islice(missing, room)):
        if ledger.is_spent:
            return
        ledger.spend(ROW_WORK + text_work)
        row = ledger.fresh(step.name, index)
        try:
            _begin(ledger, step, row)
        except ExpressionError as problem:
            _end_without_value(ledger, replace(row, started_at=ledger.now), problem)


def _status_functions(ledger: Ledger, step: StepDefinition, phase: Phase) -> StatusFunctions:
    main_failed = ledger.main_failed()
    cancelled = ledger.run.cancel_asked_at is not None
    failed = ledger.any_failed(ledger.graph.ancestors(step.name))
    if phase is Phase.FINAL:
        return StatusFunctions(not main_failed and not cancelled, main_failed or failed, cancelled)
    needed = (ledger.find(need) for need in step.needs)
    succeeded = all(row is not None and row.status is StepStatus.SUCCEEDED for row in needed)
    return StatusFunctions(succeeded, failed or (phase is not Phase.MAIN and main_failed), cancelled)
