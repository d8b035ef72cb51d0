"""Attacks from one environment, and what must hold after each of them: the service and a neighbour answer."""

import asyncio
import json
from typing import Any

from sandgate.core.execution import Termination
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.base import Sandbox
from tests.runtime.hosts import ANSWER_S, Bench
from tests.runtime.only_inside import ONLY_INSIDE

# Defines ``fails``: the name of the error that a call ends with, None when it succeeds; and ``call``, the same for a
# call of the kernel by number. What comes after it runs nowhere but in a sandbox.
TOOLS = f"""{ONLY_INSIDE}
import ctypes, errno, json, os, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def fails(call, *arguments):
    try: call(*arguments)
    except OSError as error: return errno.errorcode[error.errno]
def call(number, *arguments):
    longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *longs)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else None
"""


class Siege:
    """``attacker`` runs what is told to it; ``neighbour`` is somebody else's environment on the same launcher."""

    def __init__(self, bench: Bench, attacker: Sandbox, neighbour: Sandbox) -> None:
        self.bench = bench
        self.attacker = attacker
        self.neighbour = neighbour

    async def run(self, code: str, timeout_s: float = 60.0) -> Termination:
        """Run an attack to its end; everybody answers afterwards."""
        ran = await self.bench.run(self.attacker, TOOLS + code, timeout_s)
        await self.everybody_answers()
        return ran

    async def ask(self, code: str) -> Any:
        """What an attack that comes to its end leaves in ``answer``; everybody answers afterwards."""
        ran = await self.run(f"{code}\nprint(json.dumps(answer))")
        assert (ran.status, ran.stderr) == (ExecutionStatus.COMPLETED, b""), ran
        return json.loads(ran.stdout)

    async def everybody_answers(self) -> None:
        """The launcher answers, and a neighbour's hello comes whole and in time."""
        async with asyncio.timeout(ANSWER_S):
            await self.bench.runtime.check()
            assert await self.bench.works(self.neighbour)
