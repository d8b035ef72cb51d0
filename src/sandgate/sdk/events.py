"""Server-sent events, from bytes.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from sandgate.sdk.errors import UnexpectedAnswer

#: Far more than a server sends in one event; beyond it the other side is no such server.
LARGEST_EVENT = 16 * 1024 * 1024

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event. ``event_id`` is what to send as ``Last-Event-ID`` to go on after it; empty when there is none."""

    kind: str
    data: str
    event_id: str = ""


class EventParser:
    """Makes events of bytes that come in pieces of any size. ``last_event_id`` is that of the newest event."""

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest: list[str] = []
        self._size = 0
        self._is_first = True
        self._skips_newline = False
        self._start_event()

    def feed(self, piece: bytes) -> Iterator[ServerEvent]:
        """The events that are whole now. Raises ``UnexpectedAnswer`` for one that is larger than any may be."""
        for line in self._lines(self._decoder.decode(piece)):
            event = self._take(line)
            if event is not None:
                yield event

    def _lines(self, text: str) -> Iterator[str]:
        if self._is_first and text:
            self._is_first, text = False, text.removeprefix("\ufeff")
        if self._skips_newline and text:
            text = text.removeprefix("\n")
            self._skips_newline = False
        start = 0
        for end in _LINE_END.finditer(text):
            # A lone CR at the end of a piece ends the line; an LF that follows in the next piece belongs to it.
            self._skips_newline = end.group() == "\r" and end.end() == len(text)
            line = "".join([*self._rest, text[start : end.start()]])
            self._rest.clear()
            start = end.end()
            yield line
        self._keep(text[start:])

    def _keep(self, rest: str) -> None:
        if rest:
            self._rest.append(rest)
            self._count(len(rest))

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > LARGEST_EVENT:
            raise UnexpectedAnswer(f"The server has sent an event of more than {LARGEST_EVENT} characters")

    def _start_event(self) -> None:
        self._kind = ""
        self._data: list[str] = []
        self._id = self.last_event_id
        self._size = 0

    def _take(self, line: str) -> ServerEvent | None:
        """The event that an empty line completes."""
        if not line:
            return self._dispatch()
        self._count(len(line))
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> ServerEvent | None:
        self.last_event_id = self._id
        event = ServerEvent(self._kind or "message", "\n".join(self._data), self._id) if self._data else None
        self._start_event()
        return event
