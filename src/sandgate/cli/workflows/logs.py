"""What the code of a run has printed, as it comes: whole lines, each once, behind the name of its step."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from sandgate.cli.printable import neutralise, one_line
from sandgate.sdk.answers import Attempted, RunView, Step

Source = tuple[str, int | None, str]
"""A step, the index of an item or None, and ``stdout`` or ``stderr``."""


@dataclass(slots=True)
class _Printed:
    """How much of an attempt's output is on the terminal."""

    attempt: int = 0
    characters: int = 0


class LogPrinter:
    """Prints output. ``step`` chooses one step, whose lines then have no name in front; ``raw`` leaves text as it is.

    Text for a terminal has its control characters written out, unless ``raw``; what goes to a file is never changed.
    """

    def __init__(self, *, step: str | None = None, raw: bool = False) -> None:
        self._step = step
        self._raw = raw
        self._printed: dict[Source, _Printed] = {}
        self._open_line: Source | None = None

    def show(self, view: RunView) -> None:
        """Print what is new since the last view."""
        for step in view.steps:
            if self._step in (None, step.name):
                for index, row in _rows(step):
                    self._show_row(step.name, index, row)

    def close(self) -> None:
        """End a line that is still open."""
        if self._open_line is not None:
            stream = self._stream(self._open_line)
            # The output of one step in a file is that output and nothing else.
            stream.write("\n" if self._step is None or stream.isatty() else "")
            self._open_line = None
        sys.stdout.flush()

    def _show_row(self, name: str, index: int | None, row: Attempted) -> None:
        for kind, text in (("stdout", row.stdout), ("stderr", row.stderr)):
            source = (name, index, kind)
            printed = self._printed.setdefault(source, _Printed(row.attempts))
            if printed.attempt != row.attempts:
                # Another attempt has output of its own.
                printed.attempt, printed.characters = row.attempts, 0
            new = text[printed.characters :]
            # A line that may go on waits for its end, as long as there can be more of it.
            if row.is_live:
                new = new[: new.rfind("\n") + 1]
            printed.characters += len(new)
            if new:
                self._print(source, new)

    def _print(self, source: Source, text: str) -> None:
        stream = self._stream(source)
        shown = neutralise(text) if stream.isatty() and not self._raw else text
        if self._open_line not in (None, source):
            self.close()
        for line in _lines(shown):
            stream.write(line if self._open_line == source else self._label(source) + line)
            self._open_line = None if line.endswith("\n") else source
        stream.flush()

    def _label(self, source: Source) -> str:
        name, index, _ = source
        return "" if self._step is not None else f"{one_line(name, 63)}{'' if index is None else f'[{index}]'} | "

    def _stream(self, source: Source) -> TextIO:
        return sys.stdout if source[2] == "stdout" else sys.stderr


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
