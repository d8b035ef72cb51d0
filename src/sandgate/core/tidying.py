"""Removes what the code of a step would have removed itself, had it not been killed, where more is to run after it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from sandgate.core.errors import MechanismFault, RequestRefused
from sandgate.core.execution import ExecutionRequest, Termination
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
