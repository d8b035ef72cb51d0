"""Writes each answer in one piece, and closes connections so that the other side can still read the last one."""

import asyncio
from collections.abc import Callable
from typing import Any

# How long, and for how many bytes, a client that is told to stop may go on sending before it is cut off.
_LINGER_S = 2.0
_LINGER_BYTES = 8 * 1024 * 1024

_HEAD = b"HTTP/1.1 "
_INTERIM = b"HTTP/1.1 1"


class PoliteTransport:
    """A TCP transport whose ``close`` does not answer unread bytes with a reset.

    A reset may overtake the answer on its way to the client. While the client is still sending, closing therefore
    means: end the own direction, read and drop what comes, for a while. Source: RFC 9112, section 9.6.

    The head of an answer is held until its body comes, or the event loop turns, because uvloop sends each write by
    itself at once, and so a client would be woken twice for every answer.
    """

    def __init__(self, transport: asyncio.Transport, is_receiving: Callable[[], bool], patience_s: float) -> None:
        """A client that reads nothing of an answer for ``patience_s`` is cut off. What it reads is seen here in
        leaps, because the kernels on both sides hold megabytes.
        """
        self._patience_s = patience_s
        self._transport = transport
        self._is_receiving = is_receiving
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._reading_timer: asyncio.TimerHandle | None = None
        self._dropped = 0
        self._held = b""
        self.is_lingering = False
        # Handed on as they are.
        self.get_extra_info: Callable[..., Any] = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """Send, unless it is the head of an answer."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.writelines((held, data))
        elif data.startswith(_HEAD) and not data.startswith(_INTERIM):
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self.is_lingering or self._transport.is_closing()

    def close(self) -> None:
        """Close once everything is written, and once the client had the time to notice."""
        if self.is_closing():
            return
        if self._is_receiving():
            self.linger()
        else:
            self._close_now()

    def linger(self) -> None:
        """End the own direction; what still arrives is to be given to :meth:`drop`."""
        if self.is_closing():
            return
        self.is_lingering = True
        self._flush()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()
        self._timer = self._loop.call_later(_LINGER_S, self._close_now)

    def drop(self, data: bytes) -> None:
        """Take bytes that nobody wants any more."""
        self._dropped += len(data)
        if self._dropped > _LINGER_BYTES:
            self._close_now()

    def abort(self) -> None:
        """Close at once, whatever is left to be written."""
        self._transport.abort()

    def lost(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
        self.stop_watching()

    def watch_reading(self) -> None:
        """See to it that the client reads what waits to be sent, or cut it off."""
        self.stop_watching()
        waiting = self._transport.get_write_buffer_size()
        self._reading_timer = self._loop.call_later(self._patience_s, self._check_reading, waiting)

    def stop_watching(self) -> None:
        """The client has read enough."""
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None

    def _check_reading(self, before: int) -> None:
        waiting = self._transport.get_write_buffer_size()
        if waiting and waiting >= before:
            self._transport.abort()
        else:
            self.watch_reading()

    def _flush(self) -> None:
        if self._held and not self._transport.is_closing():
            held, self._held = self._held, b""
            self._transport.write(held)

    def _close_now(self) -> None:
        self._flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.close()
        self.watch_reading()
