"""The events of an execution, from any position on: that it has begun, what it writes, how it ended.

While it runs they come from its journal; once it has ended, or where another process runs it, from its record.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sandgate.core.execution import OUTPUT_STREAMS, Execution
from sandgate.core.session import Bundle
from sandgate.core.states import ExecutionStatus
from sandgate.environments.journal import JournalReader, Offsets, OutputJournal, Part
from sandgate.environments.live import ActiveExecution

STARTED, SKIPPED, RESULT, FINISHED = "started", "skipped", "result", "finished"
_NUMBER = "(?:0|[1-9][0-9]{0,14})"
_POSITION = re.compile(rf"{_NUMBER}\.{_NUMBER}(?:\.[0-9]{{1,9}})?")
_PART_CHARACTERS = 128 * 1024
# An execution of another process is looked at this often.
_LOOK_AGAIN_S = 1.0

Look = Callable[[], Awaitable[Execution | None]]
"""Looks at the record; None when it is gone."""


@dataclass(frozen=True, slots=True)
class ExecutionEvent:
    """``position`` is where to go on after it. ``execution`` comes with the first and the last event.

    ``kind`` is the name of a stream with ``text``, or ``skipped`` with how many ``characters`` of ``stream`` are not
    held any more, or ``result`` with a ``bundle``.
    """

    position: str
    kind: str
    execution: Execution | None = None
    text: str = ""
    stream: str = ""
    characters: int = 0
    bundle: Bundle | None = None


Batch = Sequence[ExecutionEvent]


class Events(Protocol):
    """Batches of events; ``aclose`` comes last, whether or not the end was reached."""

    def __aiter__(self) -> AsyncIterator[Batch]:
        """Itself."""
        ...

    async def __anext__(self) -> Batch:
        """What comes next. Raises ``StopAsyncIteration``, ``StoreUnavailable``."""
        ...

    async def aclose(self) -> None:
        """Nobody will read on."""
        ...


def parse_offsets(text: str) -> Offsets | None:
    """What a client says that it has read; None when that is no position."""
    if not _POSITION.fullmatch(text):
        return None
    *read, results = map(int, (text if text.count(".") > 1 else f"{text}.0").split("."))
    return Offsets(dict(zip(OUTPUT_STREAMS, read, strict=True)), results)


def follow(
    active: ActiveExecution, offsets: Offsets, *, is_new: bool, leads: bool = False, sets_pace: bool = False
) -> Events:
    """See :class:`Following`."""
    return Following(active, active.open_journal(), offsets, is_new=is_new, leads=leads, sets_pace=sets_pace)


class Following:
    """Follows one execution that runs here; see :class:`Events`.

    ``leads``: the client began the execution and waits for it, so that it sets the pace, and the execution is cancelled
    when the client goes away before the end. ``is_new``: it has not seen the beginning.
    """

    def __init__(
        self,
        active: ActiveExecution,
        journal: OutputJournal,
        offsets: Offsets,
        *,
        is_new: bool,
        sets_pace: bool = False,
        leads: bool = False,
    ) -> None:
        self._active = active
        self._journal = journal
        self._leads = leads
        self._begins = is_new
        self._reader: JournalReader = journal.reader(offsets, sets_pace=sets_pace)
        self._finished = False

    def __aiter__(self) -> "Following":
        return self

    async def __anext__(self) -> Batch:
        """The next events; waits for some. Raises ``StopAsyncIteration``, ``StoreUnavailable``."""
        while not self._finished:
            if self._begins and (self._journal.has_begun or self._journal.has_ended):
                self._begins = False
                return [ExecutionEvent(str(self._reader.offsets), STARTED, self._active.row)]
            before = str(self._reader.offsets)
            parts = self._reader.read()
            if parts:
                return list(describe_parts(parts, before))
            if not self._journal.has_ended:
                await self._journal.wait_for_change()
                continue
            record = await self._active.wait_for_record()
            self._finished = True
            offsets = self._reader.offsets
            # What nobody has seen while it ran is in the record.
            late = list(_show_rest(record, offsets))
            return [*late, ExecutionEvent(str(offsets), FINISHED, record)]
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """The client has all, or has gone."""
        self._journal.free(self._reader)
        if self._leads and not self._finished:
            self._active.handle.cancel()


def _show_rest(record: Execution, offsets: Offsets) -> Iterator[ExecutionEvent]:
    """What the record has of what was shown beyond what was seen."""
    for bundle in (record.results or ())[offsets.results :]:
        offsets.results += 1
        yield ExecutionEvent(str(offsets), RESULT, bundle=bundle)


def describe_parts(parts: Sequence[Part], before: str) -> Sequence[ExecutionEvent]:
    """Parts as events, each with the position after it."""
    offsets = parse_offsets(before) or Offsets()
    events: list[ExecutionEvent] = []
    for part in parts:
        if part.skipped:
            offsets.read[part.stream] += part.skipped
            events.append(ExecutionEvent(str(offsets), SKIPPED, stream=part.stream, characters=part.skipped))
        if part.bundle is not None:
            offsets.results += 1
            events.append(ExecutionEvent(str(offsets), RESULT, bundle=part.bundle))
            continue
        offsets.read[part.stream] += len(part.text)
        events.append(ExecutionEvent(str(offsets), part.stream, text=part.text))
    return events


async def replay(
    look: Look, offsets: Offsets, *, is_new: bool, active: ActiveExecution | None = None
) -> AsyncGenerator[Batch, None]:
    """The events of an execution from its record, waited for while it runs elsewhere, or here as ``active``.

    Raises ``StoreUnavailable``.
    """
    row = await look()
    if row is not None and is_new:
        yield [ExecutionEvent(str(offsets), STARTED, row)]
    while row is not None and row.status is ExecutionStatus.RUNNING:
        if active is None:
            await asyncio.sleep(_LOOK_AGAIN_S)
            row = await look()
        else:
            row = await active.wait_for_record()
    if row is None:
        return
    for stream, text in zip(OUTPUT_STREAMS, (row.stdout, row.stderr), strict=True):
        while rest := text[offsets.read[stream] : offsets.read[stream] + _PART_CHARACTERS]:
            offsets.read[stream] += len(rest)
            yield [ExecutionEvent(str(offsets), stream, text=rest)]
    for event in _show_rest(row, offsets):
        yield [event]
    yield [ExecutionEvent(str(offsets), FINISHED, row)]
