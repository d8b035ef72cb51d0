"""How attempts and steps end, and when an attempt is followed by another."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from sandgate.core.execution import ErrorReport
from sandgate.core.ids import derive_run_id
from sandgate.core.run import StepResult, StepRun, StepStatus, measure_printed
from sandgate.core.workflow import StepDefinition, StepType
from sandgate.workflows.conditions import MOST_PRINTED_BYTES
from sandgate.workflows.ledger import Ledger, is_waiting
from sandgate.workflows.retries import delay_before_next, may_try_again
from sandgate.workflows.state import Phase, has_failed

_LONGEST_REASON = 200
_NOT_KEPT = f"[not kept: the steps of this run have printed more than {MOST_PRINTED_BYTES} bytes]\n"
_VERBS = {StepStatus.TIMED_OUT: "timed out", StepStatus.CANCELLED: "was cancelled"}


def begin_attempt(ledger: Ledger, row: StepRun) -> None:
    """Begin the next attempt of a step or item. One that is a run has its name from here on, and only that one."""
    child = ledger.graph.steps[row.step].type is StepType.WORKFLOW
    begun = replace(
        row,
        status=StepStatus.WAITING if child else StepStatus.RUNNING,
        attempt=row.attempt + 1,
        wake_at=None,
        started_at=row.started_at or ledger.now,
    )
    details = {}
    if child:
        child_run_id = derive_run_id(row.run_id, f"{row.step} {row.item} {begun.attempt}", ledger.now)
        begun = replace(begun, child_run_id=child_run_id)
        details = {"child_run_id": child_run_id}
    ledger.begin(begun)
    ledger.note("step_started", begun, details)


def halt(ledger: Ledger, phase: Phase, status: StepStatus) -> None:
    """Kill what runs of a phase, and end what waits."""
    for row in ledger.rows():
        if ledger.graph.phase_of[row.step] is not phase:
            continue
        if is_waiting(row) or (row.key in ledger.start and row.child_run_id is None):
            # An attempt that begins in this very moment is not begun: there is nothing to kill yet.
            end(ledger, row, StepResult(status, status.value))
        elif row.is_under_way:
            ledger.kill[row.key] = None


def keep_to_begun_items(ledger: Ledger, parent: StepRun) -> None:
    """Begin no more items of a step, which ends when those have that were begun."""
    kept = replace(parent, items=ledger.count_begun(parent.step))
    ledger.put(kept)
    end_parent(ledger, kept)


def end_attempt(ledger: Ledger, row: StepRun, result: StepResult) -> None:
    """An attempt has ended: the step ends, or is tried again."""
    step = ledger.graph.steps[row.step]
    result = _within_bounds(ledger, row, result)
    if ledger.is_halted_for(row.step):
        # Killed, or lost while it was to be killed anyway. What it came to before stands.
        if result.status is not StepStatus.SUCCEEDED and result.reason in ("cancelled", "lost"):
            timed_out = ledger.run.cancel_asked_at is None
            result = replace(result, status=StepStatus.TIMED_OUT if timed_out else StepStatus.CANCELLED)
        end(ledger, row, result)
    elif may_try_again(step.retry, row, result.reason):
        _try_again(ledger, step, row, result)
    elif result.status is StepStatus.CANCELLED and ledger.run.cancel_asked_at is None:
        # Somebody ended it alone, as by its environment: the run goes on, and must not count that as well done.
        end(ledger, row, replace(result, status=StepStatus.FAILED))
    else:
        end(ledger, row, result)


def _within_bounds(ledger: Ledger, row: StepRun, result: StepResult) -> StepResult:
    """The result as far as it may be kept, beside what the run has already."""
    problem = ledger.lacks_room_for(row, len(json.dumps(result.outputs))) if result.outputs else None
    if problem is not None:
        error = ErrorReport("OutputsTooLarge", problem, "")
        result = replace(result, status=StepStatus.FAILED, reason="output_limit", outputs=None, error=error)
    if not ledger.has_room_to_print(measure_printed(result)):
        result = replace(result, stdout="", stderr=_NOT_KEPT)
    return result


def _try_again(ledger: Ledger, step: StepDefinition, row: StepRun, result: StepResult) -> None:
    row = _with_result(row, result)
    if result.reason == "lost":
        row = replace(row, losses=row.losses + 1)
    delay_s = delay_before_next(step.retry, row, result.reason)
    ledger.note("attempt_failed", row, {"reason": result.reason, "delay_s": delay_s})
    if delay_s > 0:
        wake_at = ledger.now + timedelta(seconds=delay_s)
        ledger.put(replace(row, status=StepStatus.WAITING, wake_at=wake_at, child_run_id=None))
    else:
        begin_attempt(ledger, row)


def end(ledger: Ledger, row: StepRun, result: StepResult) -> None:
    """A step or item has ended."""
    ended = replace(_with_result(row, result), status=result.status, finished_at=ledger.now, wake_at=None)
    ledger.put(ended)
    ledger.note(f"step_{result.status.value}", ended, {"reason": result.reason})
    parent = None if row.item is None else ledger.find(row.step)
    if parent is not None:
        end_parent(ledger, parent)


def end_parent(ledger: Ledger, parent: StepRun) -> None:
    """End a step with items, if all of them have ended, or no more will be begun."""
    if not parent.is_live:
        return
    halted = ledger.is_halted_for(parent.step)
    is_begun = ledger.count_begun(parent.step) == (parent.items or 0)
    if ledger.count_live(parent.step) or not (is_begun or halted):
        return
    end(ledger, parent, _judge_items(ledger, parent, ledger.items(parent), halted=halted))


def _judge_items(ledger: Ledger, parent: StepRun, items: Sequence[StepRun], *, halted: bool) -> StepResult:
    failed = sum(map(has_failed, items))
    if failed and not halted:
        error = ErrorReport("ItemsFailed", f"{failed} of {parent.items} items failed", "")
        return StepResult(StepStatus.FAILED, "failed", error=error)
    if len(items) == parent.items and all(row.status is StepStatus.SUCCEEDED for row in items):
        return StepResult(StepStatus.SUCCEEDED, "succeeded")
    if ledger.run.cancel_asked_at is None and halted:
        return StepResult(StepStatus.TIMED_OUT, "timed_out")
    return StepResult(StepStatus.CANCELLED, "cancelled")


def explain_failure(ledger: Ledger, step: str) -> str:
    """Why a run failed, for a person: what one of its steps came to, in one line."""
    row = ledger.find(step)
    if row is None:
        return f"the step {step} failed"
    text = f"the step {step} {_VERBS.get(row.status, 'failed')}{_reason(row)}"
    item = next(filter(has_failed, ledger.items(row)), None)
    return text if item is None else f"{text}; item {item.item}{_reason(item)}"


def _reason(row: StepRun) -> str:
    """What the record of the step says, which shows no secrets, cut short."""
    if row.error is None:
        return ""
    first, _, more = row.error.value.strip().partition("\n")
    if len(first) > _LONGEST_REASON or more:
        first = first[:_LONGEST_REASON] + "…"
    return f": {row.error.name}: {first}" if first else f": {row.error.name}"


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
