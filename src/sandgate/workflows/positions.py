"""How far somebody has read of a run's events, as a short text that says it all.

``17`` means: everything before entry 17 of the history. ``17:12.400.0,15.0.31`` says beside that how many characters
were read of the output, ``stdout`` and ``stderr``, of the attempts that entries 12 and 15 began and that have not
ended by entry 17. Any server can go on from there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

END = "end"
MOST_OPEN = 200
_NUMBER = "(?:0|[1-9][0-9]{0,14})"
_OFFSETS = rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
_TEXT = re.compile(rf"{_NUMBER}(?::{_OFFSETS}(?:,{_OFFSETS}){{0,{MOST_OPEN - 1}}})?")

Offsets = tuple[int, int]
"""Characters of ``stdout`` and of ``stderr``."""


@dataclass(slots=True)
class Position:
    """``next`` is the number of the entry that comes next; ``offsets`` is by the number of the beginning."""

    next: int = 0
    offsets: dict[int, Offsets] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = ",".join(f"{number}.{out}.{err}" for number, (out, err) in sorted(self.offsets.items()))
        return f"{self.next}:{parts}" if parts else str(self.next)

    def offset(self, number: int, stream: int) -> int:
        """How much was read of a stream: 0 for ``stdout``, 1 for ``stderr``."""
        return self.offsets.get(number, (0, 0))[stream]

    def add(self, number: int, stream: int, length: int) -> None:
        """So much more was read."""
        out, err = self.offsets.get(number, (0, 0))
        self.offsets[number] = (out + length, err) if stream == 0 else (out, err + length)


def parse_position(text: str) -> Position | None:
    """What a client says it has read; None when that is no position. What it says is not believed, only begun at."""
    if not _TEXT.fullmatch(text):
        return None
    first, _, rest = text.partition(":")
    offsets: Mapping[int, Offsets] = {
        int(number): (int(out), int(err)) for number, out, err in (part.split(".") for part in rest.split(",") if part)
    }
    return Position(int(first), dict(offsets))


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """``position`` is where to go on after it. ``kind`` is that of an entry of the history, a stream, or ``end``."""

    position: str
    kind: str
    data: Mapping[str, Any]


Batch = Sequence[FeedEvent]
