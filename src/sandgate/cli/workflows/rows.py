"""A run as lines and cells for people: statuses, durations, what there is to say about a step."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from sandgate.cli.printable import one_line
from sandgate.core.run import FAILED_STEP_STATUSES, StepStatus
from sandgate.core.workflow import StepType
from sandgate.sdk.answers import Attempted, Item, Run, RunView, Step

_LONGEST_NOTE = 300
_MINUTE_S, _HOUR_S = 60, 3600


def show_seconds(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S:02} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02} min"


def elapsed(row: Run | Attempted, now: datetime) -> str:
    """How long it took, or has taken until now; empty when it has not begun."""
    if row.started_at is None:
        return ""
    if isinstance(row, Attempted) and row.duration_ms is not None and not row.is_live:
        return show_seconds(row.duration_ms / 1000)
    # Clocks of two machines are never the same.
    return show_seconds(max(0.0, ((row.finished_at or now) - row.started_at).total_seconds()))


def attempts(row: Attempted) -> str:
    """Only what is not usual."""
    return f"attempt {row.attempts}" if row.attempts > 1 else ""


def note(run: Run, step: Step) -> str:
    """What there is to say about a step, on one line."""
    parts = [attempts(step), _items(step.items or ()), _decision(run, step), _why(step)]
    return one_line(", ".join(part for part in parts if part), _LONGEST_NOTE)


def shown_status(run: Run, step: Step) -> str:
    """The status of a step; one that nothing has asked for by the end of its run has not run."""
    never = step.status == StepStatus.PENDING and not run.is_live
    return "not run" if never else one_line(step.status, 40)


def waiting_steps(view: RunView) -> list[Step]:
    """The steps that wait for somebody's approval."""
    return [step for step in view.steps if step.type == StepType.APPROVAL and step.status == StepStatus.WAITING]


def ending(run: Run, now: datetime) -> str:
    """The last line about a run."""
    taken = elapsed(run, now)
    reason = f": {run.error.name}: {run.error.value}" if run.error is not None else ""
    return one_line(f"{run.run_id} {run.status}{f' after {taken}' if taken else ''}{reason}")


def _items(items: tuple[Item, ...]) -> str:
    if not items:
        return ""
    counted = Counter(item.status for item in items if not item.is_live)
    ended = sum(counted.values())
    failed = sum(count for status, count in counted.items() if status in FAILED_STEP_STATUSES)
    return f"{ended} of {len(items)} items{f', {failed} failed' if failed else ''}"


def _decision(run: Run, step: Step) -> str:
    if step.type != StepType.APPROVAL or step.status != StepStatus.WAITING:
        return ""
    outputs = step.outputs if isinstance(step.outputs, Mapping) else {}
    message = outputs.get("message")
    asked = f"{message}; " if isinstance(message, str) and message else ""
    return f"{asked}decide with: sandgate workflow approve {run.run_id} {step.name}"


def _why(step: Attempted) -> str:
    if step.error is None:
        return ""
    return f"{step.error.name}: {step.error.value}" if step.error.value else step.error.name
