"""How steps begin: attempts, waits, items, and what opens once all that it needs is over."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from sandgate.core.errors import ExpressionError
from sandgate.core.execution import ErrorReport
from sandgate.core.run import StepResult, StepRun, StepStatus
from sandgate.core.workflow import StepDefinition, StepType
from sandgate.workflows.conditions import approval_question, foreach_items, sleep_until, wants_to_run
from sandgate.workflows.endings import begin_attempt, end, end_parent
from sandgate.workflows.expressions import StatusFunctions
from sandgate.workflows.ledger import Ledger
from sandgate.workflows.state import Phase


def open_steps(ledger: Ledger, phase: Phase) -> bool:
    """Open every step of the phase that can be; whether a step ended by that, so that others may open."""
    before = ledger.noted
    for step in ledger.graph.phases[phase]:
        row = ledger.find(step.name)
        if row is None:
            if ledger.are_over(step.needs):
                _open_step(ledger, step, phase)
        elif row.items is not None and row.is_live:
            _open_items(ledger, step, row)
    return ledger.noted > before


def skip(ledger: Ledger, step: StepDefinition) -> None:
    """End a step that is not to run."""
    end(ledger, ledger.fresh(step.name), StepResult(StepStatus.SKIPPED, "skipped"))


def _open_step(ledger: Ledger, step: StepDefinition, phase: Phase) -> None:
    if ledger.is_halted_for(step.name):
        skip(ledger, step)
        return
    row = replace(ledger.fresh(step.name), started_at=ledger.now)
    try:
        status = _status_functions(ledger, step, phase)
        if not wants_to_run(step, status, ledger.seen(), is_final=phase is Phase.FINAL):
            skip(ledger, step)
        elif step.foreach is None:
            _begin(ledger, step, row)
        else:
            items = foreach_items(step, ledger.seen())
            _begin_items(ledger, step, replace(row, items=len(items)))
    except ExpressionError as problem:
        _end_without_value(ledger, row, problem)


def _end_without_value(ledger: Ledger, row: StepRun, problem: ExpressionError) -> None:
    error = ErrorReport("ExpressionError", problem.message, "")
    end(ledger, row, StepResult(StepStatus.FAILED, "failed", error=error))


def _begin(ledger: Ledger, step: StepDefinition, row: StepRun) -> None:
    """Raises ``ExpressionError``."""
    match step.type:
        case StepType.SLEEP:
            _wait(ledger, row, sleep_until(step, ledger.seen(step, row.item), ledger.now))
        case StepType.APPROVAL:
            limit_s = step.timeout_s
            row = replace(row, outputs=approval_question(step, ledger.seen(step, row.item)))
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
    """Begin items in their order, as many at a time as may be."""
    total = parent.items or 0
    if ledger.is_halted_for(step.name):
        end_parent(ledger, parent)
        return
    rows = ledger.items(parent)
    room = (step.max_parallel or total) - sum(row.is_live for row in rows)
    missing = (index for index in range(total) if ledger.find(step.name, index) is None)
    for index in list(islice(missing, max(0, room))):
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
