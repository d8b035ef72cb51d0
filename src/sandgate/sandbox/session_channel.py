"""The gateway's side of a session's channel: cells one way, frames the other way. Every frame is hostile."""

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from sandgate.core.session import Bundle
from sandgate_agent import session_wire, wire

_READ_BYTES = 256 * 1024
# Read at a time: one that talks without end must not keep the gateway from others.
_READS_AT_ONCE = 4
_LARGEST = 2**53


@dataclass(frozen=True, slots=True)
class Done:
    """How a cell ended, as its session says."""

    exit_code: int
    error: tuple[str, str, str] | None
    cpu_us: int
    peak_memory_bytes: int
    dropped: int


class FrameLimits:
    """How much more may come in one cell."""

    def __init__(self, results: int = 0, result_bytes: int = 0) -> None:
        self.results = results
        self.result_bytes = result_bytes

    def longest(self, kind: bytes) -> int:
        """The most that a frame of this kind may have behind its header now. Raises ``WireError``."""
        if kind == session_wire.RESULT and self.results > 0:
            return self.result_bytes
        if kind == session_wire.DONE:
            return session_wire.DONE_LIMIT
        if kind == session_wire.MISSED:
            return 0
        if kind in (session_wire.READY, session_wire.MARK):
            return session_wire.MARK_LIMIT
        raise wire.WireError("a frame that was not agreed, or one too many")

    def take(self, length: int) -> None:
        """A result of this length has come."""
        self.results -= 1
        self.result_bytes -= length


class SessionChannel:
    """Owns the socket. ``on_frame(kind, body)`` is told of each frame, ``on_broken(reason)`` once of the end.

    Both may close it.
    """

    def __init__(
        self,
        channel: socket.socket,
        on_frame: Callable[[bytes, bytes], None],
        on_broken: Callable[[str], None],
    ) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._on_frame = on_frame
        self._on_broken = on_broken
        self._sending = b""
        self._received = bytearray()
        # Whatever was said to an earlier gateway is skipped up to this.
        self._awaited = b""
        self.limits = FrameLimits()
        self.is_open = True
        # Whether the other side has closed it, as the end of its process does.
        self.has_ended = False
        asyncio.get_running_loop().add_reader(channel.fileno(), self._on_readable)

    def send(self, message: bytes) -> None:
        """Send as fast as it is read, behind what is being sent."""
        self._sending += message
        self._send()

    def skip_to(self, mark: bytes) -> None:
        """Ask for a mark, and skip everything until it comes."""
        self._awaited = session_wire.begin_of_mark(mark)
        self.send(wire.pack_code(b"", {"mark": mark.hex()}))

    def _send(self) -> None:
        if not self.is_open:
            return
        loop = asyncio.get_running_loop()
        try:
            # In each call, because the other side can take the flag off the socket.
            sent = self._channel.send(self._sending, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The other side is gone, which is about to be noticed.
            sent = len(self._sending)
        self._sending = self._sending[sent:]
        if self._sending:
            loop.add_writer(self._channel.fileno(), self._send)
        else:
            loop.remove_writer(self._channel.fileno())

    def _on_readable(self) -> None:
        for _read in range(_READS_AT_ONCE):
            try:
                part = self._channel.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                part = b""
            problem = self._find_problem(part)
            if problem is not None:
                asyncio.get_running_loop().remove_reader(self._channel.fileno())
                self._on_broken(problem)
                return
            if not self.is_open:
                return

    def _find_problem(self, part: bytes) -> str | None:
        """Take a part; what is wrong with it."""
        try:
            self._take(part)
        except wire.WireError as error:
            return str(error)
        self.has_ended = not part
        return None if part else "it has closed its channel"

    def read_rest(self) -> None:
        """What came before the end of the process: nobody writes any more. Nobody is told of what does not fit."""
        try:
            while self.is_open:
                part = self._channel.recv(_READ_BYTES, socket.MSG_DONTWAIT)
                if not part:
                    return
                self._take(part)
        except (OSError, wire.WireError):
            return

    def _take(self, part: bytes) -> None:
        """Hand on the frames that are whole. Raises ``WireError``."""
        received = self._received
        received += part
        if self._awaited and not self._skip():
            return
        while len(received) >= session_wire.FRAME_HEADER_BYTES:
            begin = session_wire.FRAME_HEADER_BYTES
            kind, length = session_wire.parse_frame_header(bytes(received[:begin]))
            if length > self.limits.longest(kind):
                raise wire.WireError("a frame is too long")
            if len(received) < begin + length:
                return
            body = bytes(received[begin : begin + length])
            del received[: begin + length]
            if kind == session_wire.RESULT:
                self.limits.take(length)
            self._on_frame(kind, body)
            if not self.is_open:
                return

    def _skip(self) -> bool:
        """Whether what is awaited has come; it is left where it is."""
        place = self._received.find(self._awaited)
        if place < 0:
            del self._received[: max(0, len(self._received) - len(self._awaited) + 1)]
            return False
        del self._received[:place]
        self._awaited = b""
        return True

    def close(self) -> None:
        """Let go of it."""
        if self.is_open:
            self.is_open = False
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._channel.fileno())
            loop.remove_writer(self._channel.fileno())
            self._channel.close()
            self._sending = b""


def parse_result(body: bytes, most_json: int) -> tuple[Bundle, int]:
    """Something to show, and how long its JSON is. Raises ``WireError`` unless that is JSON that any parser takes.

    ``most_json`` is how long it may be: looking at it costs more than all the rest.
    """
    bundle = session_wire.parse_bundle(body)
    texts = [text for kind, text in bundle.items() if session_wire.is_json(kind)]
    length = sum(map(len, texts))
    if length > most_json:
        raise wire.WireError("there is too much JSON")
    for text in texts:
        try:
            # What was read is written again, which nothing is that goes too deep.
            orjson.dumps(orjson.loads(text))
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):
            raise wire.WireError("a value of JSON is not") from None
    return bundle, length


def parse_done(body: bytes) -> Done:
    """The end of a cell. Raises ``WireError``."""
    try:
        said = json.loads(body)
        numbers = [said[name] for name in ("exit_code", "cpu_us", "peak_memory_bytes", "dropped")]
        error = wire.read_report(said["error"])
    except (ValueError, KeyError, TypeError, RecursionError) as wrong:
        raise wire.WireError(f"expected the end of a cell: {wrong}") from None
    if not all(type(number) is int and 0 <= number < _LARGEST for number in numbers) or numbers[0] > 255:
        raise wire.WireError("the end of a cell has strange numbers")
    return Done(numbers[0], error, *numbers[1:])
