"""Answers that go on: as fast as they are read, alive while nothing happens, bounded, and ended cleanly."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from sandgate.config.settings import Settings
from sandgate.core.errors import NotAuthenticated, StoreUnavailable, TooManyStreams
from sandgate.core.ids import UserId
from sandgate.http.exchange import begin_exchange
from sandgate.http.streaming import EventStream, ServerEvent, Streams

ONE, TWO = UserId("user-1"), UserId("user-2")
LIMIT_S = 30


class _Client:
    """What a connection is to a stream; ``stalled`` lets it read nothing more."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.messages: list[Any] = []
        self.read = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.gone = asyncio.Event()
        self.scope: dict[str, Any] = {"headers": []}
        begin_exchange(self.scope)

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.may_read.wait()
        self.messages.append(message)
        self.parts.append(message.get("body", b""))
        self.read.set()

    async def until(self, part: bytes) -> None:
        async with asyncio.timeout(LIMIT_S):
            while part not in b"".join(self.parts):
                self.read.clear()
                await self.read.wait()

    def serve(self, stream: EventStream) -> "asyncio.Task[None]":
        return asyncio.create_task(stream.serve(self.scope, self.receive, self.send))


class _Source:
    """Events that a test lets happen; counts how many were asked for."""

    def __init__(self, ready: int = 0) -> None:
        self.asked = 0
        self.closed = False
        self.may_go = asyncio.Semaphore(ready)
        self.over = False

    async def events(self) -> AsyncGenerator[Sequence[ServerEvent], None]:
        try:
            while not self.over:
                self.asked += 1
                await self.may_go.acquire()
                yield [ServerEvent("tick", str(self.asked), {"n": self.asked, "text": "a\nb"})]
        finally:
            self.closed = True


def _streams(**settings: Any) -> Streams:
    return Streams(Settings(**settings))


async def test_events_are_sent_as_they_happen() -> None:
    """Each as three lines and an empty one, and the answer is ended when they are."""
    client, source = _Client(), _Source(2)
    serving = client.serve(EventStream(_streams(), ONE, source.events()))
    await client.until(b'id: 2\nevent: tick\ndata: {"n":2,"text":"a\\nb"}\n\n')
    source.over = True
    source.may_go.release()
    await asyncio.wait_for(serving, LIMIT_S)
    assert client.messages[0]["status"] == 200
    assert client.messages[-1] == {"type": "http.response.body", "body": b""}
    assert source.closed


async def test_nothing_is_made_for_a_client_that_does_not_read() -> None:
    """The next event is asked for when the one before has left."""
    client, source = _Client(), _Source(100)
    serving = client.serve(EventStream(_streams(), ONE, source.events()))
    await client.until(b"id: 1\n")
    client.may_read.clear()
    for _ in range(50):
        await asyncio.sleep(0)
    asked = source.asked
    for _ in range(50):
        await asyncio.sleep(0)
    assert source.asked == asked < 100
    client.may_read.set()
    await client.until(b"id: 100\n")
    client.gone.set()
    serving.cancel()
    await asyncio.wait({serving})


async def test_a_quiet_stream_says_that_it_is_alive_until_its_time_is_over() -> None:
    """With comments; then it ends, and nothing was lost."""
    client, source = _Client(), _Source()
    streams = _streams(stream_heartbeat_s=0.1, stream_lifetime_s=60)
    serving = client.serve(EventStream(streams, ONE, source.events()))
    await client.until(b":\n\n" * 2)
    serving.cancel()
    await asyncio.wait({serving})
    client, source, streams = _Client(), _Source(), _streams(stream_lifetime_s=0.5)
    await asyncio.wait_for(client.serve(EventStream(streams, ONE, source.events())), LIMIT_S)
    assert client.messages[-1] == {"type": "http.response.body", "body": b""}
    assert source.closed
    assert streams.open_count == 0


@pytest.mark.parametrize("busy", [False, True])
async def test_a_stream_ends_soon_after_its_credential(busy: bool) -> None:
    """Whether or not anything happens; a database that is away for a while ends none."""
    client, source = _Client(), _Source()
    answers: list[Exception | None] = [None, StoreUnavailable("away"), NotAuthenticated("revoked")]
    asked = 0

    async def check() -> None:
        nonlocal asked
        asked += 1
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    async def make_busy() -> None:
        while busy:
            source.may_go.release()
            await asyncio.sleep(0.001)

    streams = _streams(stream_heartbeat_s=0.1)
    others = asyncio.create_task(make_busy())
    serving = asyncio.create_task(
        EventStream(streams, ONE, source.events()).serve(client.scope, client.receive, client.send, check)
    )
    await asyncio.wait_for(serving, LIMIT_S)
    others.cancel()
    assert asked == 3
    assert client.messages[-1] == {"type": "http.response.body", "body": b""}
    assert source.closed
    assert streams.open_count == 0


async def test_a_client_that_goes_away_ends_its_stream() -> None:
    """And gives its place back."""
    client, source, streams = _Client(), _Source(), _streams()
    serving = client.serve(EventStream(streams, ONE, source.events()))
    await client.until(b"retry:")
    assert streams.open_count == 1
    client.gone.set()
    await asyncio.wait({serving}, timeout=LIMIT_S)
    assert type(serving.exception()).__name__ == "ClientGone"
    assert source.closed
    assert streams.open_count == 0


def test_streams_are_bounded_by_user_and_in_all() -> None:
    """A place is free again once a stream is closed."""
    streams = _streams(max_streams=3, max_streams_per_user=2)
    with streams.opened(ONE), streams.opened(ONE):
        with pytest.raises(TooManyStreams, match="You have 2"), streams.opened(ONE):
            pass
        with streams.opened(TWO), pytest.raises(TooManyStreams, match="The server has 3"), streams.opened(TWO):
            pass
    with streams.opened(ONE):
        assert streams.open_count == 1
