"""Code that opens, sends or withholds as much as it can."""

import asyncio
import socket
import time
from dataclasses import replace

from sandgate.core.network import NetworkLimits, NetworkRules
from sandgate.sandbox.proxy.entrance import Listener
from tests.unit.sandbox.proxy.conftest import Make

_QUICK = NetworkLimits(
    connections=6,
    connections_of_owner=5,
    connections_of_environment=4,
    head_timeout_s=0.5,
    idle_timeout_s=0.5,
    lifetime_s=1.2,
    connect_timeout_s=5.0,
)


async def _hold(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_heads_that_never_come(make: Make) -> None:
    """More connections than may be open wait, and take their turn when those that say nothing were ended."""
    inside = await make(limits=_QUICK)
    silent = [await inside.connect() for _ in range(12)]
    for _reader, writer in silent:
        writer.write(b"GET http://ho")
    await asyncio.sleep(0)
    assert len(inside.server._ways_out["env-1"]._clients) <= 4
    get = f"GET http://host.test:{inside.host_port}/ HTTP/1.1\r\nHost: host.test:{inside.host_port}\r\n"
    async with asyncio.timeout(60):
        # Its own head is waited for no longer than theirs, and its machine may stand still for longer: it asks again.
        while b"hello" not in await inside.ask(get + "Connection: close\r\n\r\n"):
            pass
    for reader, _writer in silent[:4]:
        assert await reader.read() == b""


async def test_connections_of_all_are_bounded(make: Make) -> None:
    """Of an environment, of an owner, and in all."""
    inside = await make(limits=NetworkLimits(connections=6, connections_of_owner=5, connections_of_environment=4))
    sockets = []
    for number in range(3):
        listener = socket.create_server(("127.0.0.1", 0))
        owner = "user-1" if number == 0 else "user-2"
        await inside.server.open(f"env-{number + 2}", owner, NetworkRules(), Listener(listener))
        sockets.append(listener.getsockname()[1])
    for port in (inside.port, *sockets):
        for _connection in range(6):
            inside.writers.append((await asyncio.open_connection("127.0.0.1", port))[1])
    counts: dict[str, int] = {}
    deadline = time.monotonic() + 30
    while sum(counts.values()) < 6 and time.monotonic() < deadline:
        await asyncio.sleep(0.001)
        counts = {name: len(way_out._clients) for name, way_out in inside.server._ways_out.items()}
    assert counts["env-1"] == 4
    assert counts["env-1"] + counts["env-2"] <= 5
    assert sum(counts.values()) == 6


async def test_nothing_moves(make: Make) -> None:
    """A tunnel in which nobody says anything is ended, and one that is open for too long."""
    patient = replace(_QUICK, head_timeout_s=20.0)
    inside = await make(_hold, limits=replace(patient, lifetime_s=60.0))
    reader, writer = await inside.connect()
    writer.write(
        f"CONNECT host.test:{inside.host_port} HTTP/1.1\r\nHost: host.test:{inside.host_port}\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.read() == b""
    assert (inside.last().verdict, inside.last().reason) == ("allowed", "timed_out")
    inside = await make(_hold, limits=replace(patient, idle_timeout_s=20.0))
    began = time.monotonic()
    reader, writer = await inside.connect()
    writer.write(
        f"CONNECT host.test:{inside.host_port} HTTP/1.1\r\nHost: host.test:{inside.host_port}\r\n\r\n".encode()
    )
    # Nothing is written down of it before.
    await reader.readuntil(b"\r\n\r\n")
    while not reader.at_eof() and time.monotonic() - began < 30:
        writer.write(b"x")
        await asyncio.sleep(0.01)
        if inside.report().totals.open == 0 and inside.last().reason:
            break
    assert inside.last().reason == "timed_out"
    assert time.monotonic() - began > 1.1


async def test_who_never_reads(make: Make) -> None:
    """What a host sends waits with the host: the proxy holds a piece of it and no more."""
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    inside = await make(flood, limits=NetworkLimits(idle_timeout_s=0.3))
    _reader, writer = await inside.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    get = f"GET http://host.test:{inside.host_port}/ HTTP/1.1\r\nHost: host.test:{inside.host_port}\r\n\r\n"
    writer.write(get.encode())
    while not inside.report().connections or not inside.last().reason:  # noqa: ASYNC110 - it is seen from outside
        await asyncio.sleep(0.005)
    assert inside.last().reason == "timed_out"
    # What sockets hold, on the three sides of two connections.
    assert sent < 40 * 1024 * 1024


async def test_storm_of_connections(make: Make) -> None:
    """One that only connects and goes is slowed down, and others are served meanwhile."""
    inside = await make()
    for _each in range(300):
        _reader, writer = await inside.connect()
        writer.close()
    way_out = inside.server._ways_out["env-1"]
    get = f"GET http://host.test:{inside.host_port}/ HTTP/1.1\r\nHost: host.test:{inside.host_port}\r\n"
    assert b"hello" in await inside.ask(get + "Connection: close\r\n\r\n")
    assert way_out._tokens < 200


async def test_records_are_bounded(make: Make) -> None:
    """The newest are kept; the sums are of all."""
    inside = await make(limits=NetworkLimits(kept_connections=5))
    for number in range(8):
        await inside.ask(f"CONNECT a{number}.test:443 HTTP/1.1\r\nHost: a{number}.test:443\r\n\r\n")
    report = inside.report()
    assert [each.host for each in report.connections] == [f"a{number}.test" for number in (7, 6, 5, 4, 3)]
    assert report.totals.denied == 8
