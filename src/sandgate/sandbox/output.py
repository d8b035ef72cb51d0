"""Reads what an execution writes, from its own pipes, and keeps a bounded part of it."""

import asyncio
import fcntl
import os
import sys
import termios
from collections.abc import Callable

from sandgate.core.execution import OutputSink

_READ_BYTES = 65_536
# A stream that dribbles is read at this pace, so that each of its writes does not wake the gateway.
_DRIBBLE_BYTES = 4096
_PAUSE_S = 0.002
# What is only dropped is read at a pace that leaves the gateway to others: 64 KiB a millisecond.
_DROP_PAUSE_S = 0.001
# Who has written so little is looked at so often, at this pace, before it is read as it writes: of many that share the
# processors most end before, and are read once.
_LITTLE_BYTES, _LOOKS, _LOOK_S = 4096, 5, 0.004
# The largest pipe that an unprivileged process can make; what the last read may find at the end.
LARGEST_PIPE_BYTES = 1 << 20


def bytes_in(pipe: int) -> int:
    """How much there is to be read, at most what any pipe holds."""
    counted = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return min(int.from_bytes(counted, sys.byteorder), LARGEST_PIPE_BYTES)


Take = Callable[[bytes, Callable[[], None]], bool]
"""See ``OutputSink.put``."""


class OutputStream:
    """One pipe of an execution; owns its descriptor, which does not block.

    With ``sink`` nothing is kept here; ``take`` is told of everything beside what is kept, and answers like a sink.
    """

    def __init__(
        self,
        descriptor: int,
        keep_bytes: int,
        drop_bytes: int,
        on_flood: Callable[[], None],
        sink: OutputSink | None = None,
        take: Take | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._keep_bytes = keep_bytes
        self._drop_bytes = drop_bytes
        self._on_flood = on_flood
        self._sink = sink
        self._take_all = take
        self._has_room = True
        self._kept = bytearray()
        self._dropped_bytes = 0
        self._read_bytes = _READ_BYTES
        self._watched = False
        self._open = True
        self.on_kept: Callable[[bytes], None] | None = None

    @property
    def truncated(self) -> bool:
        """Whether something was dropped."""
        return self._dropped_bytes > 0

    def kept(self) -> bytes:
        """The kept part."""
        return bytes(self._kept)

    def watch(self) -> None:
        """Read as it is written, from now on."""
        if self._open and not self._watched:
            self._watched = True
            self._has_room = True
            asyncio.get_running_loop().add_reader(self._descriptor, self._on_readable)

    def watch_soon(self, looks: int = _LOOKS) -> None:
        """The same, or up to 20 ms later as long as there is little: to be read once costs much less."""
        if looks and self._open and bytes_in(self._descriptor) <= _LITTLE_BYTES:
            asyncio.get_running_loop().call_later(_LOOK_S, self.watch_soon, looks - 1)
        else:
            self.watch()

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            asyncio.get_running_loop().remove_reader(self._descriptor)

    def _read(self) -> int:
        """Read once; the number of bytes, 0 at the end, -1 when there is nothing now."""
        try:
            data = os.read(self._descriptor, self._read_bytes)
        except BlockingIOError:
            return -1
        if self._sink is not None:
            self._has_room = not data or self._sink.put(data, self.watch)
            return len(data)
        self._take(data)
        if self._take_all is not None and data:
            self._has_room = self._take_all(data, self.watch)
        return len(data)

    def _take(self, data: bytes) -> None:
        """Keep what there is room for."""
        room = self._keep_bytes - len(self._kept)
        if room > 0 and data:
            part = data[:room]
            self._kept += part
            if self.on_kept is not None:
                self.on_kept(part)
        self._dropped_bytes += max(0, len(data) - room)

    @property
    def _is_flooded(self) -> bool:
        return self._dropped_bytes > self._drop_bytes

    def _on_readable(self) -> None:
        length = self._read()
        if self._is_flooded:
            self._unwatch()
            self._on_flood()
        elif length == 0 or not self._has_room:
            self._unwatch()
        elif self._dropped_bytes and self._take_all is None:
            self._rest(_DROP_PAUSE_S)
        elif length < _DRIBBLE_BYTES:
            self._rest(_PAUSE_S)

    def _rest(self, seconds: float) -> None:
        self._unwatch()
        asyncio.get_running_loop().call_later(seconds, self.watch)

    def finish(self) -> None:
        """Read what is left in the pipe and close it; nobody writes any more, or nobody may."""
        if not self._open:
            return
        self._end(LARGEST_PIPE_BYTES)
        os.close(self._descriptor)
        if self._sink is not None:
            self._sink.close()
        self._let_go()

    def release(self) -> None:
        """Read what is in the pipe at this moment, and leave it to others: what is written from now on is theirs."""
        if self._open:
            self._end(bytes_in(self._descriptor))
            self._let_go()

    def _let_go(self) -> None:
        """Hold nobody who holds this: all that was written would wait for the collector, which seldom looks."""
        self._on_flood = _ignore
        self._sink = self._take_all = self.on_kept = None

    def _end(self, left: int) -> None:
        self._unwatch()
        self._open = False
        self._read_up_to(left)

    def _read_up_to(self, left: int) -> None:
        while left > 0 and (self._has_room or not self._open):
            self._read_bytes = min(left, _READ_BYTES)
            length = self._read()
            if length <= 0:
                break
            left -= length
        self._read_bytes = _READ_BYTES

    def catch_up(self) -> None:
        """Read what is in the pipe at this moment, unless the next piece has to wait."""
        if self._open and self._has_room:
            self._read_up_to(bytes_in(self._descriptor))
            if not self._has_room:
                self._unwatch()

    def tolerate(self) -> None:
        """What is more than may be dropped is dropped all the same: somebody sees to it that there is an end.

        Nobody is told of it any more, or what comes until then would pile up where it is told.
        """
        self._drop_bytes = sys.maxsize
        self._take_all = None
        self.watch()


def _ignore() -> None:
    """Nothing comes any more."""
