"""A proxy within the test, names that the test gives addresses, and a host to be reached."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sandgate.core.clock import ManualClock
from sandgate.core.network import Connection, NetworkLimits, NetworkPolicy, NetworkReport, NetworkRules
from sandgate.sandbox.proxy.entrance import Listener
from sandgate.sandbox.proxy.notes import Note
from sandgate.sandbox.proxy.server import ProxyServer, make_gatekeeper

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def answer_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An HTTP server that knows one answer."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()


@dataclass
class Inside:
    """What code in an environment sees, and what the test knows of it."""

    server: ProxyServer
    port: int
    host_port: int
    addresses: dict[str, Sequence[str]] = field(default_factory=dict)
    heard: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    said: list[Note] = field(default_factory=list)
    clock: ManualClock = field(default_factory=ManualClock)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the proxy."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def ask(self, text: str | bytes) -> bytes:
        """All that the proxy answers to some bytes until it closes; HOST and PORT stand for the host's."""
        data = text if isinstance(text, bytes) else text.encode("latin-1")
        reader, writer = await self.connect()
        writer.write(data.replace(b"PORT", str(self.host_port).encode()))
        with suppress(ConnectionError):
            return await reader.read()
        return b""

    def report(self) -> NetworkReport:
        """What was written down."""
        report = self.server.report("env-1")
        assert report is not None
        return report

    def last(self) -> Connection:
        """The newest connection."""
        return self.report().connections[0]

    async def settle(self, opened: int = 0) -> None:
        """Wait until as many connections are open."""
        while self.report().totals.open != opened:  # noqa: ASYNC110 - it is seen from outside
            await asyncio.sleep(0.001)


Make = Callable[..., Awaitable[Inside]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes an environment behind a proxy: ``make(handler, allow, policy fields…)``."""
    made: list[Inside] = []
    hosts: list[asyncio.Server] = []

    async def make_one(
        handler: Handler = answer_hello,
        allow: Sequence[str] = ("host.test:PORT",),
        limits: NetworkLimits | None = None,
        **policy: Any,
    ) -> Inside:  # fmt: skip
        heard: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            feed = reader.feed_data

            def note(data: bytes) -> None:
                heard.append(bytes(data))
                feed(data)

            reader.feed_data = note  # type: ignore[method-assign,assignment]
            try:
                await handler(reader, writer)
            finally:
                writer.close()

        host = await asyncio.start_server(serve, "127.0.0.1", 0)
        hosts.append(host)
        host_port = host.sockets[0].getsockname()[1]
        addresses: dict[str, Sequence[str]] = {"host.test": ["127.0.0.1"]}
        chosen = NetworkPolicy(special="127.0.0.1", limits=limits or NetworkLimits())
        said: list[Note] = []
        clock = ManualClock()

        def say(note: Note) -> bool:
            said.append(note)
            return True

        gatekeeper = make_gatekeeper(replace(chosen, **policy), lambda name: addresses[name])
        server = ProxyServer(gatekeeper, clock, say)
        listener = socket.create_server(("127.0.0.1", 0))
        rules = NetworkRules.parse([text.replace("PORT", str(host_port)) for text in allow])
        await server.open("env-1", "user-1", rules, Listener(listener))
        made.append(Inside(server, listener.getsockname()[1], host_port, addresses, heard, [], said, clock))
        return made[-1]

    yield make_one
    for inside in made:
        for writer in inside.writers:
            writer.close()
        await inside.server.close_all()
    for host in hosts:
        host.close()
