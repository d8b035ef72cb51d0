"""A command that runs in a sandbox beside what is executed there, and what it can be told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """In characters."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Command:
    """``commands`` are tried in their order: the first whose program is there is run.

    With ``terminal`` it reads from and writes to a terminal of its own; otherwise it has the two streams of output,
    and with ``takes_input`` one of input.
    """

    commands: Sequence[Sequence[str]]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    takes_input: bool = False
    terminal: TerminalSize | None = None


class OrderKind(Enum):
    """What a command can be told."""

    INPUT = auto()
    INPUT_END = auto()
    RESIZE = auto()
    SIGNAL = auto()


@dataclass(frozen=True, slots=True)
class Order:
    """One thing that a command is told: ``data`` is input, ``number`` a signal, ``size`` that of its terminal."""

    kind: OrderKind
    data: bytes = field(default=b"", repr=False)
    number: int = 0
    size: TerminalSize | None = None
