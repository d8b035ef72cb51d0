"""What a session writes between its executions: the newest part of it, so that its threads are not kept waiting."""

import asyncio
import os

from sandgate.core.session import BackgroundOutput
from sandgate.sandbox.output import bytes_in

_READ_BYTES = 65_536
_PAUSE_S = 0.002


class BackgroundStream:
    """One pipe of a session, while no execution has it; others own the descriptor.

    After ``most_bytes`` whoever writes has to wait for the next execution.
    """

    def __init__(self, descriptor: int, keep_bytes: int, most_bytes: int) -> None:
        self._descriptor = descriptor
        self._keep_bytes = keep_bytes
        self._most_bytes = most_bytes
        self._left = 0
        self._kept = bytearray()
        self._watched = False
        self._pause: asyncio.TimerHandle | None = None
        self.lost_bytes = 0

    def kept(self) -> bytes:
        """The newest part."""
        return bytes(self._kept)

    def begin(self) -> None:
        """No execution has the pipe from now on."""
        self._left = self._most_bytes
        self._watch()

    def end(self) -> None:
        """An execution takes the pipe: what is in it now is not its own."""
        self.stop()
        left = bytes_in(self._descriptor)
        while left > 0:
            length = self._read(left)
            if length <= 0:
                return
            left -= length

    def stop(self) -> None:
        """Look no more."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._watched:
            self._watched = False
            asyncio.get_running_loop().remove_reader(self._descriptor)

    def _watch(self) -> None:
        self._pause = None
        if not self._watched and self._left > 0:
            self._watched = True
            asyncio.get_running_loop().add_reader(self._descriptor, self._on_readable)

    def _on_readable(self) -> None:
        length = self._read(_READ_BYTES)
        self._left -= max(0, length)
        self.stop()
        if length:
            self._pause = asyncio.get_running_loop().call_later(_PAUSE_S, self._watch)

    def _read(self, most: int) -> int:
        """Read once; the number of bytes, 0 at the end, -1 when there is nothing now."""
        try:
            data = os.read(self._descriptor, min(most, _READ_BYTES))
        except BlockingIOError:
            return -1
        self._kept += data
        surplus = max(0, len(self._kept) - self._keep_bytes)
        del self._kept[:surplus]
        self.lost_bytes += surplus
        return len(data)


class Background:
    """Both streams of a session."""

    def __init__(self, stdout: int, stderr: int, keep_bytes: int, most_bytes: int) -> None:
        self._streams = tuple(BackgroundStream(pipe, keep_bytes, most_bytes) for pipe in (stdout, stderr))

    def begin(self) -> None:
        """See :class:`BackgroundStream`."""
        for stream in self._streams:
            stream.begin()

    def end(self) -> None:
        """See :class:`BackgroundStream`."""
        for stream in self._streams:
            stream.end()

    @property
    def output(self) -> BackgroundOutput:
        """What was kept."""
        stdout, stderr = self._streams
        return BackgroundOutput(stdout.kept(), stderr.kept(), stdout.lost_bytes + stderr.lost_bytes)
