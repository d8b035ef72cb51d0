"""Programs that builds bring along, and root file systems in which they do not start."""

import asyncio
import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sandgate.core.built import BuildFailed
from sandgate.core.execution import ExecutionRequest, Termination, Usage
from sandgate.core.states import ExecutionStatus
from sandgate.environments.builds.inside import Inside


class _Here:
    """Runs code as a process of this machine, after what is to come before it."""

    def __init__(self, before: str = "") -> None:
        self._before = before

    def execute(self, request: ExecutionRequest) -> Any:
        code = f"{self._before}\n{request.code}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
        status = ExecutionStatus.FAILED if done.returncode else ExecutionStatus.COMPLETED
        ended = asyncio.get_running_loop().create_future()
        ended.set_result(
            Termination(status, done.returncode, done.stdout, done.stderr, False, False, None, 0.0, Usage(0, 0))
        )
        return SimpleNamespace(wait=lambda: ended)


async def _check(program: Path, before: str = "") -> str:
    """What is said of it; nothing of one that runs."""
    log: Any = SimpleNamespace(last_line="")
    sandbox: Any = _Here(before)
    inside = Inside(sandbox, {}, log, asyncio.get_running_loop().time() + 60)
    try:
        await inside.check_runs(str(program), "made for another")
    except BuildFailed as failed:
        return str(failed)
    return ""


def _program(folder: Path, content: str) -> Path:
    program = folder / "program"
    program.write_text(content)
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("#!/bin/sh\nexit 0\n", ""),
        # What the kernel says of a program for glibc where there is musl, it says of a script's, too.
        ("#!/there/is/none\n", "made for another"),
        ("no program at all", "made for another"),
        ("#!/bin/sh\nexit 127\n", "made for another"),
        ("#!/bin/sh\necho no room >&2\nexit 3\n", "{} --version ended with status 3: no room"),
        ("#!/bin/sh\nkill -9 $$\n", "{} --version ended with status -9"),
    ],
)
async def test_a_program_that_does_not_run_says_why(tmp_path: Path, content: str, said: str) -> None:
    """That it is for another libc is said where its loader says so, and nowhere else."""
    program = _program(tmp_path, content)
    assert await _check(program) == said.format(program)


async def test_a_program_for_which_there_is_no_process(tmp_path: Path) -> None:
    """Is not one for another libc."""
    refuse = (
        f"import subprocess\ndef call(*_, **__): raise OSError({errno.EAGAIN}, 'none is free')\nsubprocess.call = call"
    )
    assert "failed with exit code 1" in await _check(_program(tmp_path, "#!/bin/sh\nexit 0\n"), refuse)
