"""What the code of a run has printed, as it comes: whole lines, each once, behind the name of its step.

Output comes twice: in events while code runs, and in the run's rows once an attempt has ended. Both are the same text
from its beginning, so that counting characters is enough to print none of it twice.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from sandgate.cli.printable import neutralise, one_line
from sandgate.cli.workflows.watching import OUTPUT_KINDS
from sandgate.core.run import StepStatus
from sandgate.sdk.answers import Attempted, RunView, Step
from sandgate.sdk.events import ServerEvent

_STREAMS = ("stdout", "stderr")

Source = tuple[str, int | None, str]
"""A step, the index of an item or None, and ``stdout`` or ``stderr``."""

GetStep = Callable[[str, int | None], Attempted]
"""Gets a step, or the item of it with this index, with all of its output."""


@dataclass(slots=True)
class _Stream:
    """The output of one attempt: how much is known from anywhere, how much came in events, what waits for its line."""

    attempt: int = 0
    known: int = 0
    from_events: int = 0
    held: str = ""


class LogPrinter:
    """Prints output. ``step`` chooses one step, whose lines then have no name in front; ``raw`` leaves text as it is.

    ``get_step`` gets what a run that has written much does not show of a step, or an item.

    Text for a terminal has its control characters written out, unless ``raw``; what goes to a file is never changed.
    """

    def __init__(self, get_step: GetStep, *, step: str | None = None, raw: bool = False) -> None:
        self._get_step = get_step
        self._got: dict[tuple[str, int | None], int] = {}
        self._step = step
        self._raw = raw
        self._streams: dict[Source, _Stream] = {}
        self._open_line: Source | None = None

    def show(self, view: RunView) -> None:
        """Print what is new in the rows of a run."""
        for step in view.steps:
            for index, row in _rows(step):
                # While an attempt runs, its row still has the output of the one before.
                if row.status != StepStatus.RUNNING and self._step in (None, step.name):
                    whole = self._with_output(step.name, index, row)
                    for kind, text in zip(_STREAMS, (whole.stdout, whole.stderr), strict=True):
                        self._take((step.name, index, kind), row.attempts, 0, text)
                        self._end_attempt((step.name, index, kind))

    def show_events(self, events: Iterable[ServerEvent]) -> None:
        """Print what is new in events; others than those with output are passed over."""
        for event in events:
            if event.kind in OUTPUT_KINDS:
                self._show_event(event.kind, _parse(event.data))

    def close(self) -> None:
        """Print what waits for the end of its line, and end a line that is open."""
        for source in self._streams:
            self._end_attempt(source)
        self._end_line()
        sys.stdout.flush()

    def _with_output(self, step: str, item: int | None, row: Attempted) -> Attempted:
        """The row with the output that was left out, the first time that it is looked at."""
        if not row.output_omitted or self._got.get((step, item)) == row.attempts:
            return row
        whole = self._get_step(step, item)
        if whole.attempts != row.attempts:
            return row
        self._got[step, item] = row.attempts
        return whole

    def _show_event(self, kind: str, data: dict[str, Any]) -> None:
        step, item, attempt, text = (data.get(name) for name in ("step", "item", "attempt", "text"))
        if isinstance(step, str) and isinstance(attempt, int) and isinstance(text, str):
            source = (step, item if isinstance(item, int) else None, kind)
            stream = self._stream_of(source, attempt)
            if stream.attempt == attempt:
                offset, stream.from_events = stream.from_events, stream.from_events + len(text)
                self._take(source, attempt, offset, text)

    def _take(self, source: Source, attempt: int, offset: int, text: str) -> None:
        """Text that stands at this place of an attempt's output."""
        if self._step not in (None, source[0]):
            return
        stream = self._stream_of(source, attempt)
        new = text[max(0, stream.known - offset) :]
        if stream.attempt != attempt or not new:
            return
        stream.known = offset + len(text)
        # Of several steps only whole lines are printed, of one step all that there is.
        ready, newline, rest = (stream.held + new).rpartition("\n")
        if self._step is not None:
            ready, newline, rest = stream.held + new, "", ""
        stream.held = rest
        self._print(source, ready + newline)

    def _stream_of(self, source: Source, attempt: int) -> _Stream:
        """The newest attempt's; another one begins anew."""
        stream = self._streams.setdefault(source, _Stream(attempt))
        if attempt > stream.attempt:
            self._end_attempt(source)
            self._streams[source] = stream = _Stream(attempt)
        return stream

    def _end_attempt(self, source: Source) -> None:
        stream = self._streams.get(source)
        if stream is not None and stream.held:
            text, stream.held = stream.held, ""
            self._print(source, text)

    def _print(self, source: Source, text: str) -> None:
        stream = _stream(source)
        shown = neutralise(text) if stream.isatty() and not self._raw else text
        if self._open_line not in (None, source):
            self._end_line()
        for line in _lines(shown):
            stream.write(line if self._open_line == source else self._label(source) + line)
            self._open_line = None if line.endswith("\n") else source
        stream.flush()

    def _end_line(self) -> None:
        if self._open_line is not None:
            stream = _stream(self._open_line)
            # The output of one step in a file is that output and nothing else.
            stream.write("\n" if self._step is None or stream.isatty() else "")
            self._open_line = None

    def _label(self, source: Source) -> str:
        name, index, _ = source
        return "" if self._step is not None else f"{one_line(name, 63)}{'' if index is None else f'[{index}]'} | "


def _stream(source: Source) -> TextIO:
    return sys.stdout if source[2] == "stdout" else sys.stderr


def _parse(data: str) -> dict[str, Any]:
    """The object of an event; an empty one for anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _lines(text: str) -> Iterator[str]:
    """The lines with their ends; the last one may have none. Only a newline ends a line."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _rows(step: Step) -> Iterator[tuple[int | None, Attempted]]:
    """The step, or each of its items."""
    if step.items is None:
        yield None, step
        return
    for item in step.items:
        yield item.index, item
