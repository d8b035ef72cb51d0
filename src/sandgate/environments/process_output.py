"""What a process has written, from any position that is still kept, at once or as it comes.

A position names the gateway that held the output: what an earlier one held is gone with it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sandgate.core.execution import OUTPUT_STREAMS
from sandgate.core.process import Process
from sandgate.environments.active_process import ActiveProcess, Kept
from sandgate.environments.following import FINISHED, SKIPPED, STARTED, describe_parts, parse_offsets
from sandgate.environments.journal import JournalReader, Offsets, Part

_POSITION = re.compile(r"(0|[1-9][0-9]{0,8})-([0-9]{1,15}\.[0-9]{1,15})")
_MOST_CHARACTERS = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ProcessPosition:
    """How much of each stream was read, of what the gateway of this generation held."""

    generation: int
    offsets: Offsets


def parse_position(text: str) -> ProcessPosition | None:
    """What a client says that it has read; None when that is no position."""
    found = _POSITION.fullmatch(text)
    offsets = parse_offsets(found[2]) if found else None
    return None if found is None or offsets is None else ProcessPosition(int(found[1]), offsets)


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """``position`` is where to go on after it. ``process`` comes with the first and the last event.

    ``kind`` is the name of a stream with ``text``, or ``skipped`` with how many ``characters`` of ``stream`` are not
    held any more; None: nobody knows how many.
    """

    position: str
    kind: str
    process: Process | None = None
    text: str = ""
    stream: str = ""
    characters: int | None = None


class ProcessReader:
    """Reads the output of one process behind a position; None is the beginning of what is kept."""

    def __init__(self, active: ActiveProcess, position: ProcessPosition | None, *, sets_pace: bool = False) -> None:
        self._journal = active.journal
        self._generation = active.row.generation
        self.forgotten = position is not None and position.generation != self._generation
        offsets = Offsets() if position is None or self.forgotten else position.offsets
        self._reader: JournalReader = self._journal.reader(offsets, sets_pace=sets_pace)

    @property
    def position(self) -> str:
        """What was read."""
        return f"{self._generation}-{self._reader.offsets}"

    @property
    def offsets(self) -> str:
        """What was read of what this gateway has held."""
        return str(self._reader.offsets)

    def read(self) -> list[Part]:
        """What comes next; empty when there is nothing now."""
        return self._reader.read()

    def close(self) -> None:
        """It does not set the pace any more."""
        self._journal.free(self._reader)


def read_kept(active: ActiveProcess, position: ProcessPosition | None) -> Kept:
    """What is kept of the output behind a position, up to a bound."""
    reader = ProcessReader(active, position)
    skipped: dict[str, int | None] = dict.fromkeys(OUTPUT_STREAMS, None if reader.forgotten else 0)
    pieces: dict[str, list[str]] = {name: [] for name in OUTPUT_STREAMS}
    size = 0
    while size < _MOST_CHARACTERS and (parts := reader.read()):
        for part in parts:
            known = skipped[part.stream]
            skipped[part.stream] = None if known is None else known + part.skipped
            pieces[part.stream].append(part.text)
            size += len(part.text)
    text = {name: "".join(pieces[name]) for name in OUTPUT_STREAMS}
    return Kept(reader.position, text, skipped)


class ProcessEvents:
    """Follows one process: batches of events; ``aclose`` comes last. Who falls behind misses something."""

    def __init__(self, active: ActiveProcess, position: ProcessPosition | None) -> None:
        self._active = active
        self._begins = position is None
        self._reader = ProcessReader(active, position)
        self._says_forgotten = self._reader.forgotten
        self._finished = False

    def __aiter__(self) -> "ProcessEvents":
        return self

    async def __anext__(self) -> Sequence[ProcessEvent]:
        """The next events; waits for some. Raises ``StopAsyncIteration``."""
        journal = self._active.journal
        while not self._finished:
            if self._begins:
                await self._active.wait_begun(None)
                self._begins = False
                return [ProcessEvent(self._reader.position, STARTED, self._active.row)]
            if self._says_forgotten:
                self._says_forgotten = False
                return [ProcessEvent(self._reader.position, SKIPPED, stream=name) for name in OUTPUT_STREAMS]
            before = self._reader.offsets
            parts = self._reader.read()
            if parts:
                return self._describe(parts, before)
            if not journal.has_ended:
                await journal.wait_for_change()
                continue
            self._finished = True
            return [ProcessEvent(self._reader.position, FINISHED, self._active.row)]
        raise StopAsyncIteration

    def _describe(self, parts: Sequence[Part], before: str) -> Sequence[ProcessEvent]:
        return [
            ProcessEvent(
                f"{self._active.row.generation}-{event.position}", event.kind, None, event.text, event.stream,
                event.characters if event.kind == SKIPPED else None,
            )
            for event in describe_parts(parts, before)
        ]  # fmt: skip

    async def aclose(self) -> None:
        """Nobody reads on."""
        self._reader.close()
