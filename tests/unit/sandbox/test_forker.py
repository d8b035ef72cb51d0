"""A forker that has no room for the ends of the next child: it waits for some, and listens meanwhile."""

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandgate_agent import wire

# Without walls, and without a launcher that lets it go on.
_FORKER = """
import contextlib, os, sys
from sandgate_agent import child, forker, system
child.main = child.make_main()
os.dup2(int(sys.argv[1]), 40)
os.closerange(3, 40)
made = forker.Forker(40, -1, system.open_child_signals(), False, None, [])
# Its children start nothing, and what kills in a namespace needs no descriptors either.
made._kill_all = lambda: 0
with contextlib.suppress(BrokenPipeError, ConnectionResetError):
    made._serve()
"""
# Of the standard streams, the control socket and what tells of children; and the first number that is free then.
_OWN, _FREE = 5, 4
_LIMIT_S = 30.0


class Near:
    """The gateway's side of one."""

    def __init__(self, *above: str) -> None:
        """``above`` starts it, when this process does not."""
        self.control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(_LIMIT_S)
        asked = [*above, sys.executable, "-c", _FORKER, str(far.fileno())]
        self.process = subprocess.Popen(asked, pass_fds=[far.fileno()], stdout=subprocess.PIPE if above else None)
        self.pid = self.process.pid
        far.close()
        self.number = 0
        self._ends: list[int] = []

    def take_child(self) -> None:
        """The next one comes."""
        message, ends, _flags, _address = socket.recv_fds(self.control, wire.MESSAGE_LIMIT, 4)
        assert (wire.parse_numbered(message), len(ends)) == ((wire.CHILD, self.number + 1), 3)
        self.number += 1
        self._ends = ends

    def let_child_end(self) -> None:
        """There is nothing for it to do."""
        while self._ends:
            os.close(self._ends.pop())

    def take_end(self) -> None:
        """It has ended."""
        assert wire.parse_exited(self.control.recv(wire.MESSAGE_LIMIT)).number == self.number

    def limit(self, descriptors: int) -> None:
        """How many it may have."""
        hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (descriptors, hard))

    def close(self) -> None:
        """End it: nobody speaks to it any more."""
        self.control.close()
        self.let_child_end()
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def count_open(self) -> int:
        """How many it has."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def count_waits(self) -> int:
        """How often it has waited for something. Source: proc_pid_status(5)."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("voluntary")).split()[1])


@pytest.fixture
def near() -> Iterator[Near]:
    """One that has begun."""
    made = Near()
    try:
        made.take_child()
        yield made
        made.control.close()
        made.let_child_end()
        assert made.process.wait(_LIMIT_S) == 0
    finally:
        made.close()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)  # waits: the child is another process, which acts in its own time


def _lack(near: Near, room: int) -> None:
    """Its child has ended, and there is too little room for the ends of the next one."""
    near.limit(_FREE + room)
    near.let_child_end()
    near.take_end()
    waits = near.count_waits()
    _until(lambda: near.count_waits() > waits + 3)
    assert not select.select([near.control], [], [], 0)[0], f"a child has come with room for {room} more descriptors"


@pytest.mark.parametrize("room", range(6))
def test_the_next_child_comes_when_there_is_room(room: int, near: Near) -> None:
    """Whichever of its six ends could not be opened; and nothing is left of those that could be."""
    _lack(near, room)
    near.limit(64)
    near.take_child()
    _until(lambda: near.count_open() == _OWN)


def test_it_ends_meanwhile_when_all_have_let_go(near: Near) -> None:
    """It is nobody's any more."""
    _lack(near, 0)
    near.control.close()
    assert near.process.wait(_LIMIT_S) == 0


def test_it_tries_ever_more_seldom(near: Near) -> None:
    """However long there is no room: what others need of the processor is not spent on looking for it."""
    _lack(near, 0)
    # In this order: what it waits between the two is waited in this time, however long it is.
    began = time.monotonic()
    waits = near.count_waits()
    _until(lambda: near.count_waits() > waits + 5)
    # Of pauses of 5 ms these were not a tenth of it.
    assert time.monotonic() - began > 0.25
    near.limit(64)
    near.take_child()


def test_it_ends_meanwhile_with_whoever_started_it() -> None:
    """In the process class nothing else sees to that."""
    # What starts it waits for its end, and tells its number.
    starts = (
        "import subprocess, sys\n"
        "with subprocess.Popen(sys.argv[1:], close_fds=False) as begun: print(begun.pid, flush=True)"
    )
    near = Near(sys.executable, "-c", starts)
    try:
        assert near.process.stdout is not None
        near.pid = int(near.process.stdout.readline())
        near.take_child()
        _lack(near, 0)
        near.process.kill()
        near.process.wait()
        os.kill(near.pid, signal.SIGTERM)
        assert near.control.recv(wire.MESSAGE_LIMIT) == b""
    finally:
        near.close()
