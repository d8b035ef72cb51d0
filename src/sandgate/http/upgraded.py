"""A connection that has left HTTP for another protocol: bytes in and out, both as fast as the other side takes them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from starlette.types import Scope

from sandgate.http.answer import Header

# Received and not read yet; beyond it the client is not listened to until somebody reads.
_MOST_WAITING_BYTES = 256 * 1024
_EXTENSION = "sandgate.upgrade"


class Flow(Protocol):
    """What of a connection's flow is known to its protocol."""

    async def drain(self) -> None:
        """Wait until the client has read most of what was sent."""
        ...

    def pause_reading(self) -> None:
        """Do not listen to the client."""
        ...

    def resume_reading(self) -> None:
        """Listen again."""
        ...


class Wire(Protocol):
    """What of a transport is needed."""

    def write(self, data: bytes) -> None:
        """Send."""
        ...

    def close(self) -> None:
        """Close once everything is sent."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Upgraded:
    """One task reads, any may write."""

    def __init__(self, wire: Wire, flow: Flow) -> None:
        self._wire = wire
        self._flow = flow
        self._parts: list[bytes] = []
        self._size = 0
        self._paused = False
        self._has_shown_life = True
        self._changed = asyncio.Event()
        self._gone = asyncio.Event()
        self.is_lost = False
        self.is_going_away = False
        self.on_going_away: Callable[[], None] = lambda: None

    # For the connection

    def feed(self, data: bytes) -> None:
        """Bytes have come."""
        self._has_shown_life = True
        self._parts.append(data)
        self._size += len(data)
        if self._size > _MOST_WAITING_BYTES and not self._paused:
            self._paused = True
            self._flow.pause_reading()
        self._changed.set()

    def lost(self) -> None:
        """It is closed."""
        self.is_lost = True
        self._changed.set()
        self._gone.set()

    def go_away(self) -> None:
        """The server is about to stop."""
        self.is_going_away = True
        self.on_going_away()

    # For who speaks the other protocol

    @property
    def is_backed_up(self) -> bool:
        """Whether the client is not listened to now, because nobody reads what it has sent."""
        return self._paused

    def take_sign_of_life(self) -> bool:
        """Whether anything has come since the last time that this was asked, read or not."""
        shown, self._has_shown_life = self._has_shown_life, False
        return shown

    async def wait_lost(self) -> None:
        """Wait until it is closed, whether or not anybody reads."""
        await self._gone.wait()

    async def read(self) -> bytes:
        """What has come since the last time; waits for some. Nothing at the end."""
        while not self._parts and not self.is_lost:
            self._changed.clear()
            await self._changed.wait()
        parts, self._parts, self._size = self._parts, [], 0
        if self._paused:
            self._paused = False
            self._flow.resume_reading()
        return b"".join(parts)

    def write(self, data: bytes) -> None:
        """Send; :meth:`drain` waits until there is room for more."""
        if not self.is_lost:
            self._wire.write(data)

    async def drain(self) -> None:
        """Wait until the client has read most of what was sent, or is gone."""
        await self._flow.drain()

    def close(self) -> None:
        """Close once everything is sent."""
        if self._paused:
            # Or nobody would see the client close it, too.
            self._paused = False
            self._flow.resume_reading()
        self._wire.close()

    def abort(self) -> None:
        """Close at once."""
        self._wire.abort()


Upgrade = Callable[[Sequence[Header]], Upgraded]
"""Answers 101 with these headers, and hands the connection over. Raises nothing; may be called once."""


def offer_upgrade(scope: Scope, upgrade: Upgrade) -> None:
    """Let whoever serves the request take the connection over."""
    scope.setdefault("extensions", {})[_EXTENSION] = upgrade


def find_upgrade(scope: Scope) -> Upgrade | None:
    """How to take the connection of a request over; None when the client has not asked for that, or it cannot be."""
    upgrade: Upgrade | None = scope.get("extensions", {}).get(_EXTENSION)
    return upgrade
