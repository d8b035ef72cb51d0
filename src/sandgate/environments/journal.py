"""All that an execution writes, as text in the order in which it came, for those who follow it.

The beginning is held as long as what is recorded of it; of the rest only the newest part. One reader at most sets the
pace: nothing is dropped that it has not read, and the code waits for it. Others that fall behind miss something and are
told how much.
"""

import asyncio
import codecs
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

from sandgate.core.execution import OUTPUT_STREAMS
from sandgate.core.session import Bundle

# How much text the reader that sets the pace may have left to read before the code has to wait.
_AHEAD_CHARACTERS = 512 * 1024
# Without such a reader output is taken at this pace, which leaves the process to others, unless another is chosen.
_UNPACED_BYTES_PER_S = 64 * 1024 * 1000
_PART_CHARACTERS = 128 * 1024
# Smaller pieces of one stream become one, as long as no piece of the other comes between.
_SMALL_CHARACTERS = 4096
# What a piece costs beside its text, so that many small ones are as dear as they are.
_ENTRY_CHARACTERS = 128
_BATCH_CHARACTERS = 512 * 1024
# Where nothing may be dropped: beyond so many pieces the two streams are told apart only roughly.
_MANY_ENTRIES = 8192


@dataclass(slots=True)
class Offsets:
    """How many characters of each stream were read, and how much of what was shown was seen."""

    read: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTPUT_STREAMS, 0))
    results: int = 0

    def __str__(self) -> str:
        text = ".".join(str(self.read[name]) for name in OUTPUT_STREAMS)
        return f"{text}.{self.results}" if self.results else text


@dataclass(slots=True)
class _Entry:
    """Only the last two may still grow."""

    number: int
    stream: str
    start: int
    text: str


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a stream, after ``skipped`` characters that are not there any more, or a ``bundle`` that is shown."""

    stream: str
    text: str
    skipped: int = 0
    bundle: Bundle | None = None


class OutputJournal:
    """See :class:`sandgate.core.output_watch.OutputWatch`."""

    def __init__(
        self, head_characters: int, recent_characters: int, most_bytes: int, bytes_per_s: int = _UNPACED_BYTES_PER_S
    ) -> None:
        self._head_characters = head_characters
        self._recent_characters = recent_characters
        self._most_bytes = most_bytes
        self._bytes_per_s = bytes_per_s
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in OUTPUT_STREAMS}
        self._lengths = dict.fromkeys(OUTPUT_STREAMS, 0)
        self._head: list[_Entry] = []
        self._recent: deque[_Entry] = deque()
        self._head_size = 0
        self._recent_size = 0
        self._newest: dict[str, _Entry] = {}
        # What was shown, all of it, each with the number of the entry that it came before.
        self._results: list[tuple[int, Bundle]] = []
        self._number = 0
        self._written = 0
        self._waiting: list[Callable[[], None]] = []
        self._changed: asyncio.Future[None] | None = None
        self.pacer: JournalReader | None = None
        self.has_begun = False
        self.has_ended = False

    # For the execution

    @property
    def most_bytes(self) -> int:
        """See ``OutputWatch``."""
        return self._most_bytes

    def begin(self) -> None:
        """See ``OutputWatch``."""
        self.has_begun = True
        self._wake()

    def put(self, stream: str, data: bytes, resume: Callable[[], None]) -> bool:
        """See ``OutputWatch``."""
        self.add(stream, data)
        if self.pacer is None:
            if not self._recent:
                return True
            asyncio.get_running_loop().call_later(len(data) / self._bytes_per_s, resume)
            return False
        if self._ahead_of(self.pacer) < _AHEAD_CHARACTERS:
            return True
        self._waiting.append(resume)
        return False

    def _ahead_of(self, reader: "JournalReader") -> int:
        """What the reader has left to read."""
        return self._written - reader.taken + (self._number - reader.number) * _ENTRY_CHARACTERS

    def add(self, stream: str, data: bytes) -> None:
        """Take a piece, whether or not there is somebody to read it."""
        self._add(stream, self._decoders[stream].decode(data))

    def show(self, bundle: Bundle) -> None:
        """See ``OutputWatch``. What is written from now on comes behind it."""
        self._results.append((self._number, bundle))
        self._newest.clear()
        self._wake()

    def end(self) -> None:
        """Nothing more will be written."""
        for stream in OUTPUT_STREAMS:
            self._add(stream, self._decoders[stream].decode(b"", final=True))
        self.has_ended = True
        self._waiting.clear()
        self._wake()

    def _add(self, stream: str, text: str) -> None:
        if not text:
            return
        if not self._extend(stream, text):
            for start in range(0, len(text), _PART_CHARACTERS):
                self._append(stream, text[start : start + _PART_CHARACTERS])
        self._drop_old()
        self._wake()

    def _extend(self, stream: str, text: str) -> bool:
        last = self._newest.get(stream)
        if last is None or len(last.text) + len(text) > _SMALL_CHARACTERS:
            return False
        nearest = 2 if len(self._head) > _MANY_ENTRIES and not self._recent else 1
        if last.number < self._number - nearest:
            return False
        last.text += text
        self._count(stream, len(text), len(text))
        return True

    def _append(self, stream: str, text: str) -> None:
        self._newest[stream] = entry = _Entry(self._number, stream, self._lengths[stream], text)
        self._number += 1
        if not self._recent and self._head_size < self._head_characters:
            self._head.append(entry)
        else:
            self._recent.append(entry)
        self._count(stream, len(text), len(text) + _ENTRY_CHARACTERS)

    def _count(self, stream: str, length: int, size: int) -> None:
        self._lengths[stream] += length
        self._written += length
        if self._recent:
            self._recent_size += size
        else:
            self._head_size += size

    def _drop_old(self) -> None:
        # The last one stays, because it may still grow.
        while self._recent_size > self._recent_characters and len(self._recent) > 1:
            if self.pacer is not None and self._recent[0].number >= self.pacer.number:
                return
            self._recent_size -= len(self._recent.popleft().text) + _ENTRY_CHARACTERS

    # For readers

    def reader(self, offsets: Offsets, *, sets_pace: bool = False) -> "JournalReader":
        """Somebody who has read so far."""
        made = JournalReader(self, offsets)
        if sets_pace:
            self.pacer = made
        return made

    def entries_from(self, number: int) -> Iterator[_Entry]:
        """What is held, from this entry on."""
        head = (self._head[place] for place in range(number, len(self._head)))
        if not self._recent:
            return head
        # From one to the next: a place in the middle of a queue is found by walking to it.
        return chain(head, islice(self._recent, max(0, number - self._recent[0].number), None))

    def items_from(self, number: int, shown: int) -> Iterator[_Entry | Bundle]:
        """The same with what was shown, beyond the first of it, where it came."""
        results = self._results
        for entry in self.entries_from(number):
            while shown < len(results) and results[shown][0] <= entry.number:
                yield results[shown][1]
                shown += 1
            yield entry
        for _number, bundle in results[shown:]:
            yield bundle

    def free(self, reader: "JournalReader") -> None:
        """The reader does not set the pace any more."""
        if self.pacer is reader:
            self.pacer = None
            self._drop_old()
            self._resume()

    def on_read(self, reader: "JournalReader") -> None:
        """A reader has gone on."""
        if self.pacer is reader and self._waiting and self._ahead_of(reader) < _AHEAD_CHARACTERS:
            self._drop_old()
            self._resume()

    def _resume(self) -> None:
        waiting, self._waiting = self._waiting, []
        for resume in waiting:
            resume()

    async def wait_for_change(self) -> None:
        """Wait until there is more, or the beginning, or the end."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    def _wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set_result(None)


class JournalReader:
    """Reads a journal at its own pace. ``offsets`` say what was read of each stream."""

    def __init__(self, journal: OutputJournal, offsets: Offsets) -> None:
        self._journal = journal
        self.offsets = offsets
        self.number = 0

    @property
    def taken(self) -> int:
        """How much was read in all."""
        return sum(self.offsets.read.values())

    def read(self) -> list[Part]:
        """What comes next, as much as is good at a time; empty when there is nothing now."""
        parts: list[Part] = []
        size = 0
        for entry in self._journal.items_from(self.number, self.offsets.results):
            if size >= _BATCH_CHARACTERS:
                break
            if not isinstance(entry, _Entry):
                parts.append(Part("", "", 0, entry))
                self.offsets.results += 1
                size += sum(map(len, entry.values()))
                continue
            # Not beyond the last two, because they may have grown by the next time.
            self.number = max(self.number, entry.number - 1)
            end = entry.start + len(entry.text)
            read = self.offsets.read[entry.stream]
            if read >= end:
                continue
            text = entry.text[max(0, read - entry.start) :]
            parts.append(Part(entry.stream, text, max(0, entry.start - read)))
            self.offsets.read[entry.stream] = end
            size += len(text) + _ENTRY_CHARACTERS
        self._journal.on_read(self)
        return parts
