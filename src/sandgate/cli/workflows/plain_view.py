"""A run as lines, for files, pipes and programs that read: one for each change of a step."""

from collections.abc import Iterator
from datetime import UTC, datetime

from sandgate.cli.printable import one_line
from sandgate.cli.terminal import show_time
from sandgate.cli.workflows.rows import elapsed, note
from sandgate.sdk.answers import RunView, Step


class PlainLines:
    """Tells the difference between the views that it is shown one after another."""

    def __init__(self) -> None:
        self._run = ""
        self._steps: dict[str, str] = {}

    def changes(self, view: RunView, now: datetime) -> Iterator[str]:
        """A line for the run when its status has changed, and for each step whose status or attempt has."""
        for step in view.steps:
            seen = f"{step.status} {step.attempts}"
            if step.attempts + (step.status != "pending") and self._steps.get(step.name) != seen:
                yield _line(now, step_line(view, step, now))
            self._steps[step.name] = seen
        if view.status != self._run and view.is_live:
            yield _line(now, f"{one_line(view.run_id)} {one_line(view.status)}")
        self._run = view.status


def step_line(view: RunView, step: Step, now: datetime) -> str:
    """A step in a line: name, status, time, and what there is to say."""
    taken = elapsed(step, now)
    parts = [one_line(step.name), one_line(step.status), f"({taken})" if taken and not step.is_live else ""]
    said = note(view, step)
    return " ".join(part for part in parts if part) + (f"  {said}" if said else "")


def _line(now: datetime, text: str) -> str:
    return f"{show_time(now.astimezone(UTC))}  {text}"
