"""Removes what code would have removed itself, had it not been killed, where more is to run after it.

That is the files of a step, and the file of a program in another language.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from sandgate.core.errors import MechanismFault, RequestRefused
from sandgate.core.execution import ExecutionRequest, Surroundings, Termination
from sandgate.core.states import ExecutionStatus

# A sandbox that is too busy for it keeps the files.
_LIMIT_S = 3.0
_CODE = """
import os, shutil
path = os.environ.get("TMPDIR", "/tmp") + "/" + {folder!r}
for end in ("-inputs.json", "-outputs.json"):
    try:
        os.unlink(path + end)
    except OSError:
        pass
if {whole}:
    shutil.rmtree(path, ignore_errors=True)
"""
# The names that sandgate_agent.programs takes; whoever runs a file has its lock.
_CODE_OF_PROGRAMS = """
import fcntl, os
for folder in (".", os.environ.get("TMPDIR", "/tmp")):
    for number in range(1, 65):
        path = folder + "/.sandgate-code" + ("-%d" % number if number > 1 else "") + {extension!r}
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        except OSError:
            pass
"""
_KILLED = frozenset(
    {
        ExecutionStatus.CANCELLED, ExecutionStatus.TIMED_OUT, ExecutionStatus.OUT_OF_MEMORY,
        ExecutionStatus.OUTPUT_LIMIT, ExecutionStatus.LOST,
    }
)  # fmt: skip
# What these left is not collected.
_WORTHLESS = frozenset({ExecutionStatus.CANCELLED, ExecutionStatus.LOST})


class Tidier(Protocol):
    """An execution."""

    async def wait(self) -> Termination:
        """How it ended."""
        ...

    def cancel(self) -> None:
        """Kill it."""
        ...


Execute = Callable[[ExecutionRequest], Tidier]
"""Runs code where an execution ran."""


def removal_of(folder: str, *, whole: bool = True) -> ExecutionRequest:
    """What removes the files of a step by the name of their folder; the ``whole`` folder, too, if there is one."""
    return ExecutionRequest(_CODE.format(folder=folder, whole=whole), _LIMIT_S)


def removal_after(request: ExecutionRequest) -> ExecutionRequest | None:
    """What removes the file of a program that was killed; None for what has none."""
    if request.language is None or request.session_id is not None:
        return None
    cwd = None if request.around is None else request.around.cwd
    code = _CODE_OF_PROGRAMS.format(extension=request.language.extension)
    return ExecutionRequest(code, _LIMIT_S, around=None if cwd is None else Surroundings(cwd=cwd))


def was_killed(status: ExecutionStatus) -> bool:
    """Whether code that ended so may have left what it would have removed."""
    return status in _KILLED


async def remove(execute: Execute, request: ExecutionRequest) -> None:
    """Remove files. It may take a few seconds, and may be in vain."""
    with suppress(MechanismFault, RequestRefused):
        execution = execute(request)
        try:
            async with asyncio.timeout(_LIMIT_S):
                await execution.wait()
        except TimeoutError:
            execution.cancel()


async def tidy(execute: Execute, request: ExecutionRequest, ended: Termination) -> None:
    """Remove the files of an execution that did not get to do so, but what may be collected.

    It may take a few seconds, and may be in vain.
    """
    if not ended.is_tidy and request.data is not None:
        await remove(execute, removal_of(request.data.folder, whole=ended.status in _WORTHLESS))
