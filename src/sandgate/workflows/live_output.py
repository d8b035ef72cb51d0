"""The output of attempts that run now, as text that any number of followers reads at its own pace."""

import codecs
import sys
from bisect import bisect_right
from collections.abc import Callable
from typing import Protocol

from sandgate.core.output_tap import OutputTap

STREAMS = ("stdout", "stderr")


class TextFilter(Protocol):
    """What text goes through on its way to followers; it may hold back what it cannot judge yet.

    Whole output has to come out the same as what is recorded of it, whatever the parts in which it came.
    """

    def feed(self, text: str) -> str:
        """What can be shown, now that this has come."""
        ...

    def finish(self, *, cut: bool = False) -> str:
        """What was held back, now that nothing more comes; ``cut`` when more would have come."""
        ...


class AsItIs:
    """Shows everything at once."""

    def feed(self, text: str) -> str:
        """See ``TextFilter``."""
        return text

    def finish(self, *, cut: bool = False) -> str:  # noqa: ARG002 - nothing is held back
        """See ``TextFilter``."""
        return ""


class GrowingText:
    """Bytes in, text out: decoded as a record of the whole is, whatever is cut where."""

    def __init__(self, make_filter: Callable[[], TextFilter]) -> None:
        self._make_filter = make_filter
        self._made: TextFilter | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parts: list[str] = []
        self._starts: list[int] = []
        self._length = 0

    def feed(self, data: bytes) -> None:
        """Take what was written."""
        self._add(self._filter.feed(self._decoder.decode(data)))

    def finish(self, *, cut: bool = False) -> None:
        """Take it that nothing more will be written; ``cut`` when more would have been."""
        rest = self._decoder.decode(b"", final=True)
        self._add(self._filter.feed(rest) + self._filter.finish(cut=cut))

    def read(self, offset: int, most: int) -> str:
        """The text from a character on, about ``most`` of it; empty when there is none yet."""
        if offset >= self._length:
            return ""
        first = bisect_right(self._starts, offset) - 1
        found = self._parts[first][offset - self._starts[first] :][:most]
        for part in self._parts[first + 1 :]:
            if len(found) >= most:
                break
            found += part[: most - len(found)]
        return found

    @property
    def _filter(self) -> TextFilter:
        if self._made is None:
            self._made = self._make_filter()
        return self._made

    def _add(self, text: str) -> None:
        if text:
            self._starts.append(self._length)
            self._parts.append(text)
            self._length += len(text)


class LiveOutput:
    """The output of one attempt. ``number`` is that of the entry of the run's history that began it.

    Nothing is decoded or kept here before somebody follows; what is kept then is what would be recorded.
    """

    def __init__(self, number: int, on_more: Callable[[], None]) -> None:
        self.number = number
        self.tap = OutputTap()
        self._on_more = on_more
        self._make_filter: Callable[[], TextFilter] = AsItIs
        self._texts: dict[str, GrowingText] = {}
        self._ended = False

    def filter_with(self, make_filter: Callable[[], TextFilter]) -> None:
        """Let each stream go through a filter of its own. Comes before the execution begins."""
        self._make_filter = make_filter

    def follow(self) -> None:
        """Begin to keep text, from its beginning on."""
        if not self._texts:
            self._texts = {name: GrowingText(lambda: self._make_filter()) for name in STREAMS}
            self.tap.listen(self._take)

    def read(self, stream: str, offset: int, most: int) -> str:
        """Text of a stream from a character on; empty when there is none yet."""
        return self._texts[stream].read(offset, most)

    def whole(self, stream: str) -> str:
        """All that there is of a stream, for the record of an attempt that was killed."""
        text = GrowingText(self._make_filter)
        text.feed(self.tap.kept(stream))
        text.finish(cut=True)
        return text.read(0, sys.maxsize)

    def end(self, *, stdout_cut: bool = True, stderr_cut: bool = True) -> None:
        """The attempt is over, and its output cut unless said otherwise; what comes of it later is of no account."""
        if self._ended:
            return
        self._ended = True
        for stream, cut in zip(STREAMS, (stdout_cut, stderr_cut), strict=True):
            if self._texts:
                self._texts[stream].finish(cut=cut)

    def _take(self, stream: str, data: bytes) -> None:
        if self._ended:
            return
        self._texts[stream].feed(data)
        self._on_more()
