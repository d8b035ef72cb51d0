"""What goes wrong at which write, as a test says it: ``POINT=ACTION`` with ``@N`` for the Nth time that it is reached.

Actions are ``kill`` (SIGKILL of this process), ``stop`` (SIGSTOP of it), ``stall:SECONDS``, ``fail`` (the database is
away, nothing was done) and ``unknown`` (it was done, but the answer got lost).
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandgate.core.errors import StoreUnavailable

ACTIONS = ("kill", "stop", "stall", "fail", "unknown")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong once: at the ``occurrence``-th time that ``point`` is reached."""

    point: str
    action: str
    occurrence: int = 1
    seconds: float = 0.0


def parse_fault(text: str) -> Fault:
    """Raises ``ValueError`` for what is no fault."""
    rest, _, occurrence = text.strip().partition("@")
    point, _, action = rest.partition("=")
    action, _, seconds = action.partition(":")
    if not point or action not in ACTIONS:
        raise ValueError(f"{text!r} is no fault; write POINT=ACTION@N with one of {', '.join(ACTIONS)}")
    return Fault(point, action, int(occurrence or 1), float(seconds or 0))


class Faults(Protocol):
    """Where a store asks whether something goes wrong now."""

    def take(self, point: str) -> Fault | None:
        """The fault that happens here and now; it does not happen again."""
        ...


class PlannedFaults:
    """Faults of a test in the same process; ``reached`` counts every point that was passed."""

    def __init__(self, *faults: str) -> None:
        self.waiting = [parse_fault(fault) for fault in faults]
        self.reached: Counter[str] = Counter()

    def take(self, point: str) -> Fault | None:
        """See ``Faults``."""
        self.reached[point] += 1
        for fault in self.waiting:
            if fault.point == point and fault.occurrence == self.reached[point]:
                self.waiting.remove(fault)
                return fault
        return None


class FileFaults:
    """Faults that a test in another process writes into a file, a line each, and that happen one after the other.

    A line goes when its fault happens, and the file with the last of them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._armed = ""
        self._reached = 0

    def take(self, point: str) -> Fault | None:
        """See ``Faults``."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        if text != self._armed:
            self._armed, self._reached = text, 0
        first, _, rest = text.strip().partition("\n")
        fault = parse_fault(first)
        if fault.point != point:
            return None
        self._reached += 1
        if self._reached < fault.occurrence:
            return None
        self._leave(rest)
        return fault

    def _leave(self, rest: str) -> None:
        if not rest:
            self._path.unlink()
            return
        draft = self._path.with_suffix(".rest")
        draft.write_text(rest, encoding="utf-8")
        draft.rename(self._path)


async def suffer(fault: Fault) -> None:
    """Let it happen; the word of ``unknown`` is said by whoever did the work."""
    match fault.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "stall":
            await asyncio.sleep(fault.seconds)
        case "fail":
            raise StoreUnavailable(f"A test lets the database be away at {fault.point}")
        case _:
            raise StoreUnavailable(f"A test lets the answer get lost at {fault.point}", {"outcome": "unknown"})


async def reach(faults: Faults, points: Sequence[str]) -> None:
    """Pass the points, one after another."""
    for point in points:
        fault = faults.take(point)
        if fault is not None:
            await suffer(fault)
