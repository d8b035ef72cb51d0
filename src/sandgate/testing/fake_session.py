"""Sessions of the fake runtime: the real interpreter that stays, in a process of this machine without walls."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from sandgate.core.limits import Limits
from sandgate.core.session import SessionRequest
from sandgate.sandbox.execution import WaitingChild
from sandgate.sandbox.kernel_kills import KernelKills
from sandgate.sandbox.session import SandboxSession
from sandgate_agent import wire

_SOURCES = str(Path(str(files("sandgate_agent"))).parent)
# What a child does when it is told to be a session.
_PROGRAM = f"""
import json, sys
sys.path.insert(0, {_SOURCES!r})
from sandgate_agent import child, session, wire
child._CHANNEL = int(sys.argv.pop())
length = wire.unpack_code_header(child._read_exactly(wire.CODE_HEADER_BYTES))[0]
session.run(json.loads(child._read_exactly(length)[len(wire.SESSION):]), child._CHANNEL)
"""


async def _none() -> int:
    return 0


class FakeSession(SandboxSession):
    """A session that works in a folder of this machine. Whoever opens it destroys it."""

    def __init__(self, request: SessionRequest, limits: Limits, folder: str) -> None:
        super().__init__(request, limits, KernelKills(_none))
        channel, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        stdout, inner_stdout = os.pipe2(os.O_CLOEXEC)
        stderr, inner_stderr = os.pipe2(os.O_CLOEXEC)
        with inner:
            self._process = subprocess.Popen(  # noqa: S603 - there is no shell
                [sys.executable, "-I", "-u", "-c", _PROGRAM, str(inner.fileno())],
                stdin=subprocess.DEVNULL, stdout=inner_stdout, stderr=inner_stderr, pass_fds=[inner.fileno()],
                start_new_session=True, cwd=folder,
            )  # fmt: skip
        for end in (inner_stdout, inner_stderr):
            os.close(end)
        for end in (stdout, stderr):
            os.set_blocking(end, False)
        self._ending = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._ending, self._on_exit)
        self.interrupt_by(self._pass_on)
        self.start(WaitingChild(1, channel, stdout, stderr), 0, lambda: self._signal(signal.SIGKILL))

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _pass_on(self) -> None:
        self._signal(signal.SIGINT)
        asyncio.get_running_loop().call_soon(self.on_interrupted)

    def _on_exit(self) -> None:
        if self._ending < 0:
            return
        asyncio.get_running_loop().remove_reader(self._ending)
        os.close(self._ending)
        self._ending = -1
        self._signal(signal.SIGKILL)
        code = self._process.wait()
        self.on_exited(wire.Exited(1, -code if code < 0 else code << 8, 0, 0, 0))

    def destroy(self, reason: str) -> None:
        """End it; nothing of it is there when this returns."""
        self.end(reason)
        self._on_exit()
