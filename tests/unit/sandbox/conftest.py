"""The other side of a slot, without a sandbox: what a forker sends, and what a hostile one would."""

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

import pytest

from sandgate.sandbox import descriptors
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate_agent import wire


class Peer:
    """Speaks as a forker and its children do. Everything that it has open is its own to close."""

    def __init__(self) -> None:
        self.control, self.far_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.number = 0
        self._pipes: list[int] = []
        self._inners: list[socket.socket] = []

    def child(self) -> tuple[list[int], socket.socket, int, int]:
        """A new child: what is sent of it, and its own socket, stdout and stderr."""
        outer, inner = socket.socketpair()
        stdout, stdout_inside = os.pipe()
        stderr, stderr_inside = os.pipe()
        self._pipes += [stdout_inside, stderr_inside]
        self._inners.append(inner)
        return [outer.detach(), stdout, stderr], inner, stdout_inside, stderr_inside

    def send_child(self) -> tuple[socket.socket, int, int]:
        """Tell of the next child."""
        sent, inner, stdout, stderr = self.child()
        self.number += 1
        self.send(wire.pack_numbered(wire.CHILD, self.number), sent)
        return inner, stdout, stderr

    def forget_child(self, inner: socket.socket, stdout: int, stderr: int) -> None:
        """Let go of one that has ended."""
        self._inners.remove(inner)
        inner.close()
        for pipe in (stdout, stderr):
            self._pipes.remove(pipe)
            os.close(pipe)

    def send(self, message: bytes, sent: list[int]) -> None:
        """Send a message, and let go of what went with it."""
        descriptors.send(self.far_control, message, sent)
        for descriptor in sent:
            os.close(descriptor)

    def send_exited(self, wait_status: int = 0, number: int | None = None) -> None:
        """Tell of the end of the child."""
        number = self.number if number is None else number
        self.send(wire.pack_exited(number, wait_status, 1000, 2000, 4096), [])

    def heard(self) -> bytes:
        """The next message of the gateway's."""
        self.far_control.settimeout(30)
        return self.far_control.recv(100)

    def close(self) -> None:
        """Let go of everything."""
        self.far_control.close()
        for inner in self._inners:
            inner.close()
        for descriptor in self._pipes:
            os.close(descriptor)


@pytest.fixture
def no_leak() -> Iterator[None]:
    """Fails when a descriptor is open afterwards that was not before."""
    before = _open_now()
    yield
    if _open_now() != before:
        # What is in a circle has to be found first.
        gc.collect()
    # What is closed by now was left over from others.
    assert _open_now().items() <= before.items()


def _open_now() -> dict[str, str]:
    """Every descriptor and what it leads to, but for the one of this look."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


@pytest.fixture
async def peer(no_leak: None) -> AsyncIterator[Peer]:
    """A forker's end; fails when an exception got into the loop."""
    escaped: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: escaped.append(context))
    peer = Peer()
    yield peer
    peer.close()
    peer.control.close()
    await asyncio.sleep(0)
    assert escaped == []


async def settle(condition: Callable[[], object] = lambda: True) -> None:
    """Let the loop handle what has arrived, until something holds."""
    async with asyncio.timeout(30):
        for _round in range(3):
            await asyncio.sleep(0)
        while not condition():  # noqa: ASYNC110 - what is waited for comes through the kernel, and tells nobody
            await asyncio.sleep(0.0005)


def settle_reactor(reactor: Reactor) -> None:
    """Let it call back for all that is there now."""
    for _round in range(3):
        reactor.call_later(0.0, reactor.stop)
        reactor._stopped = False
        reactor.run()
