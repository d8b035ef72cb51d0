"""How commands print: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from sandgate.cli.printable import neutralise, one_line

if TYPE_CHECKING:
    from sandgate.sdk.answers import AnswerModel

#: A table that is not on a terminal is not cut.
_WIDE = 500


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_record(record: "AnswerModel") -> None:
    """The same for what a server has answered."""
    print_json(record.model_dump(mode="json"))


def print_records(name: str, records: "Iterable[AnswerModel]") -> None:
    """The same for a list of them, which is called ``name``."""
    print_json({name: [record.model_dump(mode="json") for record in records]})


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on standard output; what is in it is shown, never obeyed: no markup, no control characters."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False).print(table)


def write_text(stream: TextIO, text: str, *, raw: bool = False) -> None:
    """What code has written, at once. Its control characters are shown on a terminal, and obeyed only with ``raw``."""
    stream.write(text if raw or not stream.isatty() else neutralise(text))
    stream.flush()


def complain(message: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"sandgate: {one_line(message)}\n")
    sys.stderr.flush()


def complain_once() -> Callable[[str], None]:
    """The same, but not twice in a row."""
    last = [""]

    def say(message: str) -> None:
        if message != last[0]:
            complain(message)
        last[0] = message

    return say


def show_time(moment: datetime) -> str:
    """A time as the API writes it."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
