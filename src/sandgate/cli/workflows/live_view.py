"""A run on a terminal: a table of its steps that redraws in place."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sandgate.cli.printable import one_line
from sandgate.cli.workflows.rows import elapsed, note, shown_status
from sandgate.core.run import StepStatus
from sandgate.sdk.answers import RunView, Step

_PER_SECOND = 8
# Title, an empty line, the line for what is left out, and one for the prompt.
_OTHER_LINES = 4
_TERMINATED = 128 + signal.SIGTERM
_MARKS = {
    StepStatus.PENDING: ("·", "dim"),
    StepStatus.RUNNING: ("▸", "cyan"),
    StepStatus.WAITING: ("‖", "yellow"),
    StepStatus.SUCCEEDED: ("✓", "green"),
    StepStatus.FAILED: ("✗", "red"),
    StepStatus.TIMED_OUT: ("✗", "red"),
    StepStatus.CANCELLED: ("■", "magenta"),
    StepStatus.SKIPPED: ("-", "dim"),
}
_STYLES = {str(status): style for status, (_, style) in _MARKS.items()}


class RunScreen:
    """What is on the screen: the newest view, and what is to be said beside it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._view: RunView | None = None
        self._trouble = ""

    def show(self, view: RunView) -> None:
        """From now on."""
        self._view, self._trouble = view, ""

    def say(self, trouble: str) -> None:
        """Beside the view, until the next one."""
        self._trouble = trouble

    def render(self) -> Group:
        """The picture of this moment: times of what runs go on between two views."""
        parts: list[Text | Table] = []
        if self._view is not None:
            parts += render_run(self._view, datetime.now(UTC), self._console.size.height)
        if self._trouble:
            parts.append(Text(one_line(self._trouble), style="yellow", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)


@contextmanager
def opened_screen(console: Console) -> Iterator[RunScreen]:
    """A screen until the block ends; its last picture stays. However it ends, the cursor is there again."""
    screen = RunScreen(console)
    with (
        _terminated_in_order(),
        Live(
            console=console, get_renderable=screen.render, refresh_per_second=_PER_SECOND, vertical_overflow="crop"
        ) as live,
    ):
        yield screen
        live.refresh()


def render_run(view: RunView, now: datetime, height: int) -> list[Text | Table]:
    """The parts of a picture with at most ``height`` lines."""
    title = Text(no_wrap=True, overflow="ellipsis")
    title.append(one_line(view.workflow_name, 128), style="bold")
    title.append(f"  {one_line(view.run_id)}  ")
    title.append(one_line(view.status), style=_STYLES.get(view.status, ""))
    title.append(f"  {elapsed(view, now)}")
    shown, left_out = choose_steps(view.steps, max(1, height - _OTHER_LINES))
    parts: list[Text | Table] = [title, _table(view, shown, now)]
    if left_out:
        parts.append(Text(f"  and {left_out} more steps", style="dim"))
    return parts


def choose_steps(steps: Sequence[Step], most: int) -> tuple[Sequence[Step], int]:
    """The steps that fit, and how many do not: what runs goes before what has failed, that before what is to come."""
    if len(steps) <= most:
        return steps, 0
    order: Callable[[int], tuple[int, int]] = lambda index: (_rank(steps[index]), index)  # noqa: E731
    kept = sorted(sorted(range(len(steps)), key=order)[:most])
    return [steps[index] for index in kept], len(steps) - most


def _rank(step: Step) -> int:
    match step.status:
        case StepStatus.RUNNING | StepStatus.WAITING:
            return 0
        case StepStatus.FAILED | StepStatus.TIMED_OUT:
            return 1
        case StepStatus.PENDING:
            return 2
    return 3


def _table(view: RunView, steps: Sequence[Step], now: datetime) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(width=1)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=40)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for step in steps:
        mark, style = _MARKS.get(StepStatus(step.status), ("?", "")) if step.status in _STYLES else ("?", "")
        table.add_row(
            Text(mark, style=style),
            Text(one_line(step.name, 63)),
            Text(shown_status(view, step), style=style),
            Text(elapsed(step, now)),
            Text(note(view, step), style="dim"),
        )
    return table


@contextmanager
def _terminated_in_order() -> Iterator[None]:
    """A request to end leaves the terminal as it was."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
