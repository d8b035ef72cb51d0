"""Connections that the proxy takes where nobody can hand it one: it makes them, and gives one end away."""

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from sandgate.core.network import NetworkLimits, NetworkRules
from sandgate.sandbox import descriptors
from sandgate.sandbox.proxy.entrance import Entrance, Hatch, Listener, open_entrance
from sandgate_agent import wire
from tests.unit.sandbox.proxy.conftest import Make


@pytest.fixture
def pair() -> Iterator[tuple[Entrance, socket.socket]]:
    """A hatch, and the end of a relay."""
    outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    hatch = open_entrance(outer.detach())
    assert isinstance(hatch, Hatch)
    inner.setblocking(False)
    with inner:
        yield hatch, inner
    hatch.close()


def _take(relay: socket.socket) -> socket.socket:
    _message, (end,) = descriptors.receive(relay, 1)
    return socket.socket(fileno=end)


def test_one_for_each_that_waits(pair: tuple[Entrance, socket.socket]) -> None:
    """And none for nobody."""
    hatch, relay = pair
    with pytest.raises(BlockingIOError):
        hatch.accept()
    relay.send(wire.WAITS)
    with hatch.accept() as outer, _take(relay) as inner:
        inner.send(b"hello")
        assert outer.recv(9) == b"hello"
    with pytest.raises(BlockingIOError):
        hatch.accept()


def test_nobody_asks_any_more(pair: tuple[Entrance, socket.socket]) -> None:
    """Is an end, and no error that is tried again."""
    hatch, relay = pair
    relay.close()
    with pytest.raises(EOFError):
        hatch.accept()


def test_one_that_asks_and_takes_nothing(pair: tuple[Entrance, socket.socket]) -> None:
    """Only a few are on their way to it, which count for the user of all; then it gets what it asked for, once."""
    hatch, relay = pair
    made: list[socket.socket] = []
    with pytest.raises(ConnectionAbortedError):  # noqa: PT012 - until it is refused
        while len(made) < 100:
            relay.send(wire.WAITS)
            made.append(hatch.accept())
    assert 0 < len(made) < 12
    for _connection in made:
        _take(relay).close()
    with hatch.accept(), _take(relay):
        pass
    for outer in made:
        outer.close()


def test_nothing_comes_out_but_bytes(pair: tuple[Entrance, socket.socket]) -> None:
    """Descriptors that somebody sends all the same are nobody's here."""
    hatch, relay = pair
    relay.send(wire.WAITS)
    before = len(os.listdir("/proc/self/fd"))
    with hatch.accept() as outer, _take(relay) as inner:
        try:
            descriptors.send(inner, b"x", [0, 0, 0])
        except PermissionError:
            inner.send(b"x")
        assert outer.recv(9) == b"x"
        assert len(os.listdir("/proc/self/fd")) == before + 2


def test_a_listener_is_told_apart() -> None:
    """What is taken from it is what has connected."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        entrance = open_entrance(os.dup(listener.fileno()))
        assert isinstance(entrance, Listener)
        with socket.create_connection(listener.getsockname()), entrance.accept():
            pass
        entrance.close()


async def test_through_the_proxy(make: Make) -> None:
    """As through a listener; a relay that floods it is slowed down and held to the bounds, and its end ends it."""
    inside = await make(limits=NetworkLimits(connections_of_environment=4))
    outer, relay = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    rules = NetworkRules.parse([f"host.test:{inside.host_port}"])
    await inside.server.open("env-2", "user-1", rules, open_entrance(outer.detach()))
    relay.setblocking(False)
    relay.send(wire.WAITS)
    reader, writer = await asyncio.open_connection(sock=await _taken(relay))
    head = f"GET http://host.test:{inside.host_port}/ HTTP/1.1\r\nHost: host.test:{inside.host_port}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode())
    assert (await reader.read()).endswith(b"hello")
    writer.close()
    for _each in range(20):
        relay.send(wire.WAITS)
    held = [await _taken(relay) for _each in range(4)]
    way_out = inside.server._ways_out["env-2"]
    for _turn in range(20):
        await asyncio.sleep(0)
    assert len(way_out._clients) == 4
    relay.close()
    for end in held:
        end.close()
    async with asyncio.timeout(20):
        await way_out._accepting
    await inside.server.close("env-2")


async def _taken(relay: socket.socket) -> socket.socket:
    loop = asyncio.get_running_loop()
    there = asyncio.Event()
    loop.add_reader(relay.fileno(), there.set)
    async with asyncio.timeout(20):
        await there.wait()
    loop.remove_reader(relay.fileno())
    end = _take(relay)
    end.setblocking(False)
    return end
