"""What a build does in a sandbox of its own: programs, code, and packing what has come of it; answers are hostile."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sandgate.core.built import BuildFailed
from sandgate.core.errors import SandgateError
from sandgate.core.execution import ExecutionRequest, FileOperation, Surroundings, Termination
from sandgate.core.files import parse_answer
from sandgate.core.intake import Intake
from sandgate.core.recipe import LAYER_FOLDER
from sandgate.core.states import ExecutionStatus
from sandgate.environments.archives import PACKING
from sandgate.environments.builds.log import BuildLog, LogWatch
from sandgate.environments.file_channels import Channel
from sandgate.sandbox.base import Sandbox

# Started from a copy of the interpreter that waits, a program is a process of its own, and its output that of the code.
RUN = "import subprocess, sys\nsys.exit(subprocess.call({argv!r}, stdin=subprocess.DEVNULL))"

# How a program ends that only says its version; ``unfit`` when the kernel finds no loader for it.
TRY = """
import errno, subprocess
nul = subprocess.DEVNULL
try:
    print(subprocess.call([{program!r}, "--version"], stdin=nul, stdout=nul))
except OSError as error:
    if error.errno not in (errno.ENOENT, errno.ENOEXEC):
        raise
    print("unfit")
"""
# Loaders that find symbols of another libc missing end with these, as shells do that cannot run a program.
_UNFIT = ("unfit", "126", "127")


class Inside:
    """One sandbox of a build. ``env`` are the variables of all code, ``deadline`` is a time of the event loop's."""

    def __init__(self, sandbox: Sandbox, env: Mapping[str, str], log: BuildLog, deadline: float) -> None:
        self.sandbox = sandbox
        self._env = env
        self._log = log
        self._deadline = deadline

    @property
    def left_s(self) -> float:
        """How much of the build's time there is left, a little at least."""
        return max(0.1, self._deadline - asyncio.get_running_loop().time())

    async def run(self, what: str, argv: list[str], around: Surroundings | None = None) -> None:
        """Run a program, with the variables of the recipe and those that come with it. Raises ``BuildFailed``."""
        await self.execute(what, RUN.format(argv=argv), around)

    async def check_runs(self, program: str, unfit: str) -> None:
        """See that a program runs in there; ``unfit`` is said of one made for another libc. Raises ``BuildFailed``."""
        what = f"{program} --version"
        said = await self.execute(what, TRY.format(program=program), is_told=False)
        status = plain(said.stdout.decode("utf-8", "replace")).strip()
        if status in _UNFIT:
            raise BuildFailed(unfit)
        if status != "0":
            words = plain(said.stderr.decode("utf-8", "replace")).strip()
            raise BuildFailed(f"{what} ended with status {status[:20]}" + (f": {words[-500:]}" if words else ""))

    async def execute(
        self,
        what: str,
        code: str,
        around: Surroundings | None = None,
        *,
        is_told: bool = True,
        limit_s: float | None = None,
    ) -> Termination:
        """Run code in the template's folder; what it writes goes into the log, when it ``is_told``.

        Raises ``BuildFailed``.
        """
        around = around or Surroundings()
        around = replace(around, env={**self._env, **around.env}, cwd=LAYER_FOLDER)
        timeout_s = self.left_s if limit_s is None else min(limit_s, self.left_s)
        watch = LogWatch(self._log) if is_told else None
        ended = await self.sandbox.execute(ExecutionRequest(code, timeout_s, around=around, watch=watch)).wait()
        if ended.status is not ExecutionStatus.COMPLETED:
            raise BuildFailed(f"{what} {_describe(ended)}{self._last_words(ended)}")
        return ended

    def _last_words(self, ended: Termination) -> str:
        if ended.status is not ExecutionStatus.FAILED:
            return ""
        report = ended.error
        if report is not None and report.name not in ("SystemExit", "NonZeroExit", "Signal"):
            return f": {report.name}: {report.value}"[:500]
        return f": {self._log.last_line}" if self._log.last_line else ""

    def begin(self, operation: FileOperation) -> Channel:
        """Begin to work on files; whoever does closes it."""
        intake = Intake()
        return Channel(self.sandbox.execute(ExecutionRequest("", self.left_s, sink=intake, files=operation)), intake)

    async def pack(self, **arguments: Any) -> AsyncIterator[bytes]:
        """A folder as a tar. Raises ``BuildFailed``."""
        channel = self.begin(FileOperation("pack", {"form": "tar", **arguments}, None, PACKING))
        try:
            await channel.answer()
            while part := await channel.part():
                yield part
            parse_answer(await channel.record())
        except SandgateError as error:
            raise BuildFailed(f"what was built could not be packed: {error.message}") from None
        finally:
            channel.close()


def _describe(ended: Termination) -> str:
    match ended.status:
        case ExecutionStatus.FAILED:
            return f"failed with exit code {ended.exit_code}"
        case ExecutionStatus.TIMED_OUT:
            return "was not done in time"
        case ExecutionStatus.OUT_OF_MEMORY:
            return "needed more memory than a build has"
        case ExecutionStatus.OUTPUT_LIMIT:
            return "wrote more than a build may"
        case status:
            return f"ended as {status}"


def parse_names(text: bytes) -> list[str] | None:
    """A list of names that came from a sandbox; None when it is none."""
    with suppress(ValueError, RecursionError):
        names: Any = json.loads(text)
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return [plain(name)[:100] for name in names[:10]]
    return None


def plain(text: str) -> str:
    """As a database and a log can keep it."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
