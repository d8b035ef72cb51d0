"""A slot whose other side is hostile: only that slot is lost, nothing leaks, and nothing gets into the loop."""

import asyncio
import os
import socket
import struct

import pytest

from sandgate.core.errors import SandboxFailed
from sandgate.core.execution import ExecutionRequest
from sandgate.core.limits import Limits
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.execution import ZygoteExecution
from sandgate.sandbox.kernel_kills import KernelKills
from sandgate.sandbox.slot import Slot
from sandgate_agent import wire
from tests.unit.sandbox.conftest import Peer, settle


class Watched:
    """A slot, and what it has called back."""

    def __init__(self, peer: Peer) -> None:
        self.ready = 0
        self.lost = 0
        self.slot = Slot(peer.control, self._on_ready, self._on_lost)

    def _on_ready(self, _slot: Slot) -> None:
        self.ready += 1

    def _on_lost(self, _slot: Slot) -> None:
        self.lost += 1


@pytest.fixture
async def watched(peer: Peer) -> Watched:
    """A slot on the near end."""
    return Watched(peer)


async def _none() -> int:
    return 0


def execution(timeout_s: float = 60.0) -> ZygoteExecution:
    """Some code."""
    return ZygoteExecution(ExecutionRequest("pass", timeout_s), Limits(), KernelKills(_none))


async def started(peer: Peer, watched: Watched) -> tuple[ZygoteExecution, socket.socket, int, int]:
    """An execution that has the first child, and the child's side of it."""
    inner, stdout, stderr = peer.send_child()
    await settle(lambda: watched.slot.is_ready)
    running = execution()
    watched.slot.start(running, 0)
    return running, inner, stdout, stderr


async def test_ordinary_life(peer: Peer, watched: Watched) -> None:
    """A child, its code, its output, its end, and the next one."""
    running, inner, stdout, stderr = await started(peer, watched)
    assert inner.recv(100) == wire.pack_code(b"pass")
    os.write(stdout, b"out")
    os.write(stderr, b"err")
    inner.send(wire.pack_report("E", "v", "t"))
    peer.send_exited(1 << 8)
    ended = await running.wait()
    assert (ended.status, ended.exit_code, ended.stdout, ended.stderr) == (ExecutionStatus.FAILED, 1, b"out", b"err")
    assert ended.error is not None
    assert ended.error.name == "E"
    assert (ended.usage.cpu_ms, ended.usage.peak_memory_bytes) == (3, 4096)
    inner.close()
    peer.send_child()
    await settle(lambda: watched.slot.is_ready)
    assert (watched.ready, watched.lost) == (2, 0)
    assert watched.slot.close()
    assert not watched.slot.close()


def _child(number: int) -> bytes:
    return wire.pack_numbered(wire.CHILD, number)


MESSAGES = {
    "garbage": b"garbage",
    "one byte": b"C",
    "the end of a child that never was": wire.pack_exited(0, 0, 0, 0, 0),
    "the end of a later child": wire.pack_exited(1, 0, 0, 0, 0),
    "a forged end": b"X" + b"\xff" * 36,
    "a kill": wire.pack_numbered(wire.KILL, 1),
    "a reset": wire.pack_numbered(wire.RESET, 1),
    "a clone": wire.pack_numbered(wire.CLONED, 1),
    "a child without descriptors": _child(1),
    "a report": wire.pack_report("E", "v", "t"),
    "code": wire.pack_code(b"pass"),
    "much": b"C" * 60_000,
    "zeros": bytes(9),
}


@pytest.mark.parametrize("name", MESSAGES)
async def test_wrong_message(name: str, peer: Peer, watched: Watched) -> None:
    """It is the end of the slot."""
    peer.send(MESSAGES[name], [])
    await settle(lambda: watched.lost)
    assert (watched.ready, watched.lost) == (0, 1)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(
    "message", [b"", b"x", wire.pack_exited(1, 0, 0, 0, 0), wire.pack_numbered(wire.CLONED, 1), _child(2)]
)
async def test_descriptors_with_a_wrong_message(message: bytes, count: int, peer: Peer, watched: Watched) -> None:
    """They are closed, however many came with whatever."""
    peer.send(message, [os.open("/dev/null", os.O_RDONLY) for _each in range(count)])
    await settle(lambda: watched.lost)
    assert watched.lost == 1


@pytest.mark.parametrize("count", [0, 1, 2, 4, 9])
async def test_wrong_number_of_descriptors(count: int, peer: Peer, watched: Watched) -> None:
    """A child has three."""
    peer.send(_child(1), [os.open("/dev/null", os.O_RDONLY) for _each in range(count)])
    await settle(lambda: watched.lost)
    assert watched.ready == 0


def _stream() -> int:
    near, far = socket.socketpair()
    far.close()
    return near.detach()


def _pipe(end: int) -> int:
    ends = os.pipe()
    os.close(ends[1 - end])
    return ends[end]


KINDS = {
    "file": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "folder": lambda: os.open("/", os.O_RDONLY),
    "device": lambda: os.open("/dev/zero", os.O_RDWR),
    "event": lambda: os.eventfd(1),
    "memory": lambda: os.memfd_create("x"),
    "path": lambda: os.open("/", os.O_PATH),
    "pipe": lambda: _pipe(0),
    "datagrams": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
    "tcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach(),
    "stream": _stream,
}


# What belongs in each place.
_RIGHT = {("stream", 0), ("pipe", 1), ("pipe", 2)}


@pytest.mark.parametrize(("kind", "place"), sorted({(kind, place) for kind in KINDS for place in range(3)} - _RIGHT))
async def test_wrong_kind_of_descriptor(kind: str, place: int, peer: Peer, watched: Watched) -> None:
    """A child's are a stream of this machine's and two pipes, and nothing else is read or written."""
    sent = [_stream(), _pipe(0), _pipe(0)]
    os.close(sent[place])
    sent[place] = KINDS[kind]()
    peer.send(_child(1), sent)
    await settle(lambda: watched.lost)
    assert watched.ready == 0


async def test_pipes_that_were_made_to_block(peer: Peer, watched: Watched) -> None:
    """Whoever keeps a copy of a pipe or a socket cannot make the gateway wait for it."""
    sent, inner, stdout, _stderr = peer.child()
    copies = [os.dup(descriptor) for descriptor in sent]
    for pipe in sent[1:]:
        os.fchmod(pipe, 0o666)
    peer.send(_child(1), sent)
    await settle(lambda: watched.slot.is_ready)
    running = ZygoteExecution(ExecutionRequest("#" * 4_000_000, 60), Limits(), KernelKills(_none))
    for copy in copies:
        os.set_blocking(copy, True)
    watched.slot.start(running, 0)
    for copy in copies:
        os.set_blocking(copy, True)
    os.write(stdout, b"x")
    await asyncio.sleep(0.01)
    for copy in copies:
        os.set_blocking(copy, True)
    peer.number = 1
    peer.send_exited()
    assert (await running.wait()).stdout == b"x"
    inner.close()
    for copy in copies:
        os.close(copy)
    watched.slot.close()


@pytest.mark.parametrize(
    "message",
    [
        wire.pack_exited(0, 0, 0, 0, 0),
        wire.pack_exited(2, 0, 0, 0, 0),
        wire.pack_exited(2**64 - 1, 0, 0, 0, 0),
        wire.pack_exited(1, 0, 2**64 - 1, 0, 0),
        _child(1),
        _child(2),
        b"X",
        b"X" * 37,
    ],
)
async def test_wrong_message_while_one_runs(message: bytes, peer: Peer, watched: Watched) -> None:
    """The execution is lost with its slot, with what it had written."""
    running, _inner, stdout, _stderr = await started(peer, watched)
    os.write(stdout, b"before")
    peer.send(message, [])
    ended = await running.wait()
    assert (ended.status, ended.exit_code, ended.stdout) == (ExecutionStatus.LOST, None, b"before")
    assert watched.lost == 1


async def _waste(peer: Peer, watched: Watched) -> None:
    """A child comes, and ends before it is needed."""
    inner, stdout, stderr = peer.send_child()
    peer.send_exited(9)
    ready = watched.ready
    await settle(lambda: (watched.ready > ready and not watched.slot.is_ready) or watched.lost)
    peer.forget_child(inner, stdout, stderr)


async def test_children_that_end_before_they_are_needed(peer: Peer, watched: Watched) -> None:
    """The kernel may end so many, until one is needed; who tells of more lies, and is the end of the slot."""
    for _each in range(64):
        await _waste(peer, watched)
    running, _inner, _stdout, _stderr = await started(peer, watched)
    peer.send_exited()
    assert (await running.wait()).status is ExecutionStatus.COMPLETED
    for _each in range(64):
        await _waste(peer, watched)
    assert (watched.ready, watched.lost) == (129, 0)
    await _waste(peer, watched)
    assert watched.lost == 1


async def test_memory_has_a_moment_before_the_next_child(peer: Peer, watched: Watched) -> None:
    """While there is none, one after the other would end."""
    await _waste(peer, watched)
    assert peer.heard() == wire.pack_numbered(wire.HOLD, 1)
    assert await asyncio.to_thread(peer.heard) == wire.pack_numbered(wire.NEXT, 1)
    running, _inner, _stdout, _stderr = await started(peer, watched)
    peer.send_exited()
    assert (await running.wait()).status is ExecutionStatus.COMPLETED
    watched.slot.close()


async def test_second_child_beside_one_that_waits(peer: Peer, watched: Watched) -> None:
    """There is one at a time."""
    peer.send_child()
    peer.send_child()
    await settle(lambda: watched.lost)
    assert (watched.ready, watched.lost) == (1, 1)


@pytest.mark.parametrize("status", [0, 9, 0x7F, 0xFF, 0xFFFF, 139, 64 << 8, -1, 2**31 - 1, -(2**31), 65])
async def test_any_wait_status(status: int, peer: Peer, watched: Watched) -> None:
    """Whatever number is said, the answer has an exit code that a shell could have said."""
    running, _inner, _stdout, _stderr = await started(peer, watched)
    peer.send_exited(status)
    ended = await running.wait()
    assert ended.exit_code is not None
    assert 0 <= ended.exit_code <= 255
    watched.slot.close()


async def test_end_of_the_channel(peer: Peer, watched: Watched) -> None:
    """A forker that is gone is the end of the slot, once."""
    running, _inner, _stdout, _stderr = await started(peer, watched)
    peer.far_control.close()
    assert (await running.wait()).status is ExecutionStatus.LOST
    assert watched.lost == 1
    running.cancel()
    assert (await running.wait()).status is ExecutionStatus.LOST


async def test_channel_that_does_not_take_kills(peer: Peer, watched: Watched) -> None:
    """A forker that reads nothing delays no answer."""
    running, _inner, _stdout, _stderr = await started(peer, watched)
    try:
        while True:
            peer.control.send(b"x" * 1000)
    except BlockingIOError:
        running.cancel()
    assert (await running.wait()).status is ExecutionStatus.CANCELLED
    watched.slot.close()


async def test_talk_without_end_while_resetting(peer: Peer, watched: Watched) -> None:
    """One that never says that it has forgotten is given up, and the loop goes on meanwhile."""
    resetting = asyncio.ensure_future(watched.slot.reset(1.0))
    await asyncio.sleep(0)
    rounds = 0
    peer.far_control.setblocking(False)
    while not resetting.done():
        rounds += 1
        for _message in range(50):
            try:
                peer.far_control.send(b"blah")
            except BlockingIOError:
                break
        await asyncio.sleep(0)
    with pytest.raises(SandboxFailed):
        await resetting
    assert rounds > 3
    watched.slot.close()


async def test_reset(peer: Peer, watched: Watched) -> None:
    """What was said to an earlier gateway is skipped, with what came with it."""
    peer.send_child()
    resetting = asyncio.ensure_future(watched.slot.reset(60))
    await asyncio.sleep(0)
    peer.send(b"nonsense", [os.open("/dev/null", os.O_RDONLY)])
    kind, nonce = wire.parse_numbered(peer.heard())
    assert kind == wire.RESET
    peer.send(wire.pack_numbered(wire.RESET, nonce + 1), [])
    peer.send(wire.pack_numbered(wire.RESET, nonce), [])
    peer.number = 0
    peer.send_child()
    await resetting
    await settle(lambda: watched.slot.is_ready)
    assert (watched.ready, watched.lost) == (1, 0)
    watched.slot.close()


async def test_reset_of_one_that_dies(peer: Peer, watched: Watched) -> None:
    """It is refused at once."""
    resetting = asyncio.ensure_future(watched.slot.reset(60))
    await asyncio.sleep(0)
    peer.far_control.close()
    with pytest.raises(SandboxFailed):
        await resetting
    assert watched.lost == 1


async def test_descriptors_with_a_wrong_answer_to_resume(peer: Peer, watched: Watched) -> None:
    """They are closed once: by the second time their numbers may be somebody else's."""
    resuming = asyncio.ensure_future(watched.slot.resume({}, 60))
    await asyncio.sleep(0)
    answer = peer.heard()[: wire.NUMBERED_BYTES]
    peer.send(answer + b"short", [os.open("/dev/null", os.O_RDONLY)])
    with pytest.raises(SandboxFailed):
        await asyncio.wait_for(resuming, 30)
    assert watched.lost == 1


async def test_random_bytes(peer: Peer, watched: Watched) -> None:
    """Whatever comes first ends it, if it is no child."""
    peer.send(struct.pack("!cQ", b"C", 0), [])
    await settle(lambda: watched.lost)
    assert not watched.slot.is_ready
