"""Words to the process that works on a run, and what processes tell each other of runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sandgate.core.ids import RunId, SignalId
from sandgate.core.run import RunSignal


class SignalStore(Protocol):
    """Rows of signals; ``RunStore.apply`` deletes them."""

    async def insert(self, signal: RunSignal) -> bool:
        """Add a row, unless it is there, and wake up the process that works on the run.

        False, and nothing written, when it has ended.
        """
        ...

    async def list_held(self, owner: str) -> Sequence[RunSignal]:
        """The signals to runs that ``owner`` works on, oldest first."""
        ...

    async def exists(self, signal_id: SignalId) -> bool:
        """Whether nobody has acted on it yet."""
        ...


class NoteKind(StrEnum):
    """What a process tells the others."""

    SIGNAL = "signal"
    """There is a signal to a run."""
    CHANGED = "changed"
    """A run has ended, or a signal to it was acted on."""
    FREE = "free"
    """A process has let go of runs."""
    SCHEDULES = "schedules"
    """A schedule is new or was changed, or a run that one started has ended."""
    AGAIN = "again"
    """Notes may have been missed."""


@dataclass(frozen=True, slots=True)
class RunNote:
    """A note; ``run_id`` is None for ``SCHEDULES`` and ``AGAIN``."""

    kind: NoteKind
    run_id: RunId | None = None


class RunNotes(Protocol):
    """What other processes tell. Notes get lost with connections: whoever waits for one looks by himself as well."""

    async def listen(self, on_note: Callable[[RunNote], None]) -> None:
        """Hear notes until cancelled; returns at once where there are no other processes."""
        ...
