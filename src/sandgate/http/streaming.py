"""Answers that go on while something happens: server-sent events.

Source: the HTML standard, section 9.2. A stream sends only as fast as its client reads; nothing is queued for it. A
client that reads nothing at all is cut off by the connection (see ``polite_transport``).
"""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from starlette.types import Receive, Scope, Send

from sandgate.config.settings import Settings
from sandgate.core.errors import NotAuthenticated, StoreUnavailable, TooManyStreams
from sandgate.core.ids import UserId
from sandgate.http.answer import Header
from sandgate.http.connection import while_connected
from sandgate.http.exchange import exchange_of

MEDIA_TYPE = "text/event-stream"
LAST_EVENT_ID = b"last-event-id"
_CONTENT_TYPE = f"{MEDIA_TYPE}; charset=utf-8".encode()
# Proxies that gather an answer before they hand it on would make it late.
_HEADERS: tuple[Header, ...] = ((b"content-type", _CONTENT_TYPE), (b"x-accel-buffering", b"no"))
_HEARTBEAT = b":\n\n"
# How long a stream may go on with a credential that has been ended, whatever the settings say.
_LONGEST_UNCHECKED_S = 15.0
# A client that was cut off asks again after so many milliseconds.
_RETRY = b"retry: 1000\n\n"

STREAM_DOCUMENT: dict[str, Any] = {"content": {MEDIA_TYPE: {"schema": {"description": "A stream of events."}}}}
"""The part of an operation's document that says what its streams are; to be given an example."""


LAST_EVENT_ID_PARAMETER: dict[str, Any] = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The `id` of the last event that was read; the stream goes on after it.",
    "schema": {"type": "string"},
}


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event. ``event_id`` is what the client sends back to go on after it; one line, as ``name`` is."""

    name: str
    event_id: str
    data: Any

    def encode(self) -> bytes:
        """As it is sent. JSON has no line breaks outside of texts, where they are escaped."""
        data = orjson.dumps(self.data, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (self.event_id.encode(), self.name.encode(), data)


Check = Callable[[], Awaitable[object]]
"""Raises ``NotAuthenticated`` when the caller would not be let in any more."""


class Events(Protocol):
    """Batches of events; ``aclose`` comes last, also when none was asked for."""

    def __anext__(self) -> Awaitable[Sequence[ServerEvent]]:
        """What comes next. Raises ``StopAsyncIteration``."""
        ...

    def aclose(self) -> Awaitable[None]:
        """Nobody reads on."""
        ...


class Streams:
    """Counts the streams that are open, and holds how they behave."""

    def __init__(self, settings: Settings) -> None:
        self.heartbeat_s = settings.stream_heartbeat_s
        self.lifetime_s = settings.stream_lifetime_s
        self._most = settings.max_streams
        self._most_per_user = settings.max_streams_per_user
        self._open: Counter[UserId] = Counter()

    @property
    def open_count(self) -> int:
        """How many are open."""
        return self._open.total()

    @contextmanager
    def opened(self, user_id: UserId) -> Iterator[None]:
        """Count one more for as long as it is open. Raises ``TooManyStreams``."""
        self.check_room(user_id)
        self._open[user_id] += 1
        try:
            yield
        finally:
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]

    def check_room(self, user_id: UserId) -> None:
        """Raises ``TooManyStreams`` when there is no room for one more."""
        if self._open[user_id] >= self._most_per_user:
            raise TooManyStreams(
                f"You have {self._most_per_user} event streams open, the most allowed; close one",
                {"limit": self._most_per_user},
            )
        if self.open_count >= self._most:
            raise TooManyStreams(
                f"The server has {self._most} event streams open, the most allowed; ask again later",
                {"limit": self._most},
                retry_after_s=5,
            )


class EventStream:
    """An answer that sends ``events`` until they end, its lifetime or its credential is over, or the client goes away.

    A client whose stream ends without a last event asks again. With ``is_bounded`` there is no lifetime, because the
    events end by themselves in good time.
    """

    def __init__(self, streams: Streams, user_id: UserId, events: Events, *, is_bounded: bool = False) -> None:
        self._lifetime_s = math.inf if is_bounded else streams.lifetime_s
        self._streams = streams
        self._user_id = user_id
        self._events = events

    async def serve(self, scope: Scope, receive: Receive, send: Send, check: Check | None = None) -> None:
        """Send it. Raises ``TooManyStreams`` before anything was sent, ``ClientGone``.

        ``check`` is awaited now and then, and ends the stream by raising ``NotAuthenticated``.
        """
        async with aclosing(self._events):
            with self._streams.opened(self._user_id):
                await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
                if not exchange_of(scope).wants_head_only:
                    await while_connected(receive, self._send_all(send, check))
                await send({"type": "http.response.body", "body": b""})

    async def _send_all(self, send: Send, check: Check | None) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._lifetime_s
        check_every_s = min(_LONGEST_UNCHECKED_S, self._streams.heartbeat_s)
        checked_at = loop.time()
        await _send_part(send, _RETRY)
        coming: asyncio.Task[Sequence[ServerEvent]] | None = None
        try:
            while (left_s := deadline - loop.time()) > 0:
                if coming is None:
                    coming = loop.create_task(_next(self._events), name="next events")
                wait_s = min(left_s, self._streams.heartbeat_s, max(0.0, checked_at + check_every_s - loop.time()))
                done, _ = await asyncio.wait({coming}, timeout=wait_s)
                if loop.time() >= checked_at + check_every_s:
                    if check is not None and not await is_still_let_in(check):
                        return
                    checked_at = loop.time()
                if not done:
                    await _send_part(send, _HEARTBEAT)
                    continue
                batch, coming = coming.result(), None
                if not batch:
                    return
                await _send_part(send, b"".join([event.encode() for event in batch]))
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait({coming})


async def is_still_let_in(check: Check) -> bool:
    """Whether the credential that the stream was asked for with is still good; a database that is away ends none."""
    try:
        await check()
    except NotAuthenticated:
        return False
    except StoreUnavailable:
        return True
    return True


async def _next(events: Events) -> Sequence[ServerEvent]:
    """The next batch; empty at the end."""
    try:
        return await events.__anext__()
    except StopAsyncIteration:
        return ()


async def _send_part(send: Send, part: bytes) -> None:
    """Returns once the client has read most of what was sent before."""
    await send({"type": "http.response.body", "body": part, "more_body": True})
