"""A launcher of the tests' own, and runtimes connected to it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from bench.lifeline import Lifeline
from sandgate.cli import privileges
from sandgate.core.execution import ExecutionRequest, Termination
from sandgate.core.ids import EnvironmentId, make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.network import NetworkPolicy
from sandgate.core.states import ExecutionStatus, Isolation
from sandgate.core.volume import MountedVolume
from sandgate.sandbox.base import Sandbox, SandboxSpec
from sandgate.sandbox.launcher import starter
from sandgate.sandbox.launcher.config import LauncherConfig, TemplateConfig
from sandgate.sandbox.launcher.gvisor.runsc import find_runsc
from sandgate.sandbox.launcher.hierarchies import find_hierarchies
from sandgate.sandbox.zygote_runtime import ZygoteRuntime
from tests.abilities import find_interpreter
from tests.stalls import PAUSE_S, Stalls

VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
# Far from the default of the settings, so that a server on the same machine shares no id with the tests.
_HOST_ID_BASE = 1_700_000_000
_PLAIN_USER_ID = 1_699_999_999
_MOST_DESCRIPTORS = 24
# Generous, because a machine that runs tests is busy; what starves a neighbour takes longer.
ANSWER_S = 30.0
# What never comes costs a test that fails as much; what comes late on a busy machine is no failure.
_PATIENCE_S = 60.0


@cache
def available_versions() -> Sequence[str]:
    """The versions of Python that this machine has."""
    return tuple(version for version in VERSIONS if find_interpreter(version))


@cache
def find_templates() -> tuple[TemplateConfig, ...]:
    """A template for each version of Python that this machine has."""
    found = []
    for version in available_versions():
        interpreter = os.path.realpath(find_interpreter(version) or "")
        prefix = str(Path(interpreter).parent.parent)
        found.append(TemplateConfig(f"python-{version}", interpreter, prefix))
    return tuple(found)


@dataclass
class LauncherHost:
    """A launcher process and where it is found."""

    config: LauncherConfig
    isolation: Isolation
    process: subprocess.Popen[str]

    def runtime(self, policy: NetworkPolicy | None = None) -> ZygoteRuntime:
        """A runtime that will connect to it."""
        return ZygoteRuntime(self.isolation, self.config.socket_path, policy=policy)

    def processes(self) -> dict[int, str]:
        """Every process below the launcher but the zygotes, with its name."""
        return {pid: name for pid, (name, _parent) in self._all().items() if name != "sg-zygote"}

    def forkers(self) -> list[int]:
        """The process 1 of every slot, oldest first; their children bear the same name for a moment."""
        named = {pid: parent for pid, (name, parent) in self._all().items() if name == "sg-forker"}
        return oldest_first(pid for pid, parent in named.items() if parent not in named)

    def agents(self) -> list[int]:
        """What falls when the agents of a sandbox do: forkers, or gVisor's kernel under them; oldest first."""
        if self.isolation is not Isolation.GVISOR:
            return self.forkers()
        return oldest_first(pid for pid in self._all() if program_of(pid) == b"runsc-sandbox")

    def zygotes(self) -> list[int]:
        """The zygotes."""
        return oldest_first(pid for pid, (_name, parent) in self._all().items() if parent == self.process.pid)

    def _all(self) -> dict[int, tuple[str, int]]:
        return descendants(self.process.pid)

    def groups(self, controller: str = "pids") -> list[Path]:
        """The folder of each sandbox in the hierarchy of a controller."""
        with open("/proc/self/mountinfo") as mounts:
            hierarchies = find_hierarchies(mounts.read())
        mount = next(hierarchy.mount for hierarchy in hierarchies if controller in hierarchy.controllers)
        return sorted((mount / self.config.tree_name).glob("s*"))

    def log(self) -> str:
        """What it has written."""
        return (self.config.run_folder / "launcher.log").read_text()


def descendants(root: int) -> dict[int, tuple[str, int]]:
    """The processes below one, with name and parent, by what ``/proc`` says now."""
    parents, names = {}, {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            left, _, right = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
        except OSError:
            continue
        if right.split()[0] in "ZX":
            # It is over, and its parent will bury it.
            continue
        parents[pid], names[pid] = int(right.split()[1]), left.partition("(")[2]
    found = [root]
    for parent in found:
        found.extend(pid for pid, its_parent in parents.items() if its_parent == parent)
    return {pid: (names[pid], parents[pid]) for pid in found[1:]}


def oldest_first(pids: Iterable[int]) -> list[int]:
    """By when they began: on a machine that is at work their numbers come to an end, and begin anew.

    One that is gone by now comes first. Source: proc_pid_stat(5), ``starttime``.
    """

    def began(pid: int) -> tuple[int, int]:
        try:
            return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]), pid
        except OSError:
            return 0, pid

    return sorted(pids, key=began)


def program_of(pid: int) -> bytes:
    """The first word of its command line; nothing once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
    except OSError:
        return b""


def _descriptors_of(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


async def until(
    condition: Callable[[], object], limit_s: float = _PATIENCE_S, *, what: Callable[[], object] | None = None
) -> None:
    """Wait until something holds; fails when it does not within the limit, and tells ``what`` there was instead."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {limit_s} s: {what and what()}"
        await asyncio.sleep(0.002)


class Lag:
    """How late this loop calls back at worst, but for what the machine kept this whole process from running.

    Known in ``worst_s`` after the block; what is too little to matter is none.
    """

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._late: list[tuple[float, float]] = []

    async def _measure(self) -> None:
        while True:
            due = time.monotonic() + 0.002
            try:
                await asyncio.sleep(0.002)
            finally:
                now = time.monotonic()
                if now - due > PAUSE_S:
                    self._late.append((due, now))

    @classmethod
    @asynccontextmanager
    async def measured(cls) -> AsyncIterator["Lag"]:
        """Measure during the block."""
        lag = cls()
        with Stalls.noted() as stalls:
            task = asyncio.ensure_future(lag._measure())
            # It has begun when the block does.
            await asyncio.sleep(0)
            try:
                yield lag
            finally:
                task.cancel()
                await asyncio.wait([task])
        lag.worst_s = max((now - due - stalls.between(due, now) for due, now in lag._late), default=0.0)


def _start_plain(config: LauncherConfig) -> subprocess.Popen[str]:
    """As an ordinary user, who is shown what is in folders that only root may enter."""
    package = Path(starter.__file__).parents[3]
    prefixes = [Path(template.prefix) for template in config.templates]
    privileges.open_view([Path(sys.prefix), Path(sys.base_prefix).resolve(), package, *prefixes])
    return starter.start(config, config.run_folder / "launcher.log", _PLAIN_USER_ID)


def start_launcher(config: LauncherConfig) -> subprocess.Popen[str]:
    """Start (again) the launcher of a configuration."""
    if config.standard or os.geteuid() != 0:
        return starter.start(config, config.run_folder / "launcher.log")
    # The view is a mount namespace, and a thread can have one of its own.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_start_plain, config).result()


def _find_gvisor() -> dict[str, Any]:
    runsc = find_runsc()
    assert runsc is not None
    return {"runsc": runsc.path, "platform": runsc.platform}


@contextmanager
def launcher_host(isolation: Isolation, **changes: Any) -> Iterator[LauncherHost]:
    """A launcher that ends with the block, and everything that it has made; ``changes`` to its configuration."""
    with tempfile.TemporaryDirectory(prefix="sgl-") as folder:
        run_folder = Path(folder)
        run_folder.chmod(0o755)
        standard = isolation is not Isolation.PROCESS
        if not standard and os.geteuid() == 0:
            os.chown(run_folder, _PLAIN_USER_ID, _PLAIN_USER_ID)
        config = LauncherConfig(
            run_folder=run_folder,
            tree_name=f"sandgate-test-{run_folder.name[-8:]}",
            gateway_uid=os.geteuid(),
            host_id_base=_HOST_ID_BASE,
            most_sandboxes=2000,
            standard=standard,
            templates=find_templates(),
            volumes_folder=run_folder / "volumes",
            **(_find_gvisor() if isolation is Isolation.GVISOR else {}),
        )
        config = replace(config, **changes)
        host = LauncherHost(config, isolation, start_launcher(config))
        lifeline = Lifeline(host.process.pid)
        try:
            yield host
        finally:
            held = {pid: _descriptors_of(pid) for pid in host.zygotes()}
            lifeline.cut()
            host.process.send_signal(signal.SIGTERM)
            host.process.wait(_PATIENCE_S)
        # Whatever it has cloned: a few of its own, and those of a request or two that is under way.
        assert all(number <= _MOST_DESCRIPTORS for number in held.values()), f"zygotes keep descriptors: {held}"


class Bench:
    """Makes sandboxes of one runtime and runs code in them, in as few words as a test deserves."""

    def __init__(self, host: LauncherHost, runtime: ZygoteRuntime) -> None:
        self.host = host
        self.runtime = runtime
        self.ended: list[tuple[EnvironmentId, str]] = []
        self.made: list[EnvironmentId] = []
        self.neighbour: Sandbox | None = None

    @property
    def on_gvisor(self) -> bool:
        """Whether its sandboxes have a kernel of their own."""
        return self.host.isolation is Isolation.GVISOR

    def on_end(self, environment_id: EnvironmentId, reason: str) -> None:
        """Note what ended unasked."""
        self.ended.append((environment_id, reason))

    async def make(
        self, version: str | None = None, limits: Limits | None = None, lifetime_s: float = 120.0
    ) -> Sandbox:
        """A sandbox; of the newest Python unless told otherwise."""
        template = f"python-{version or available_versions()[-1]}"
        environment_id = make_environment_id()
        self.made.append(environment_id)
        return await self.runtime.create(SandboxSpec(environment_id, template, limits or Limits(), lifetime_s))

    async def make_with(self, *volumes: MountedVolume) -> Sandbox:
        """A sandbox with volumes."""
        template = f"python-{available_versions()[-1]}"
        environment_id = make_environment_id()
        self.made.append(environment_id)
        sandbox = await self.runtime.create(SandboxSpec(environment_id, template, Limits(), 120.0))
        await self.runtime.volumes.mount(environment_id, volumes)
        return sandbox

    def request(self, code: str, timeout_s: float = _PATIENCE_S) -> ExecutionRequest:
        """Code as a sandbox takes it."""
        return ExecutionRequest(code, timeout_s)

    async def run(self, sandbox: Sandbox, code: str, timeout_s: float = _PATIENCE_S) -> Termination:
        """Run code to its end."""
        return await sandbox.execute(ExecutionRequest(code, timeout_s)).wait()

    async def ask(self, sandbox: Sandbox, code: str) -> Any:
        """What code that runs inside, to its end and without a word, leaves in ``answer``."""
        ran = await self.run(sandbox, f"import json\n{code}\nprint(json.dumps(answer))")
        assert (ran.status, ran.stderr) == (ExecutionStatus.COMPLETED, b""), ran
        return json.loads(ran.stdout)

    async def add_neighbour(self) -> None:
        """Somebody else's sandbox, for a test that attacks; it is not counted below."""
        self.neighbour = await self.make()
        assert await self.works(self.neighbour)

    async def everybody_answers(self) -> None:
        """Assert that the launcher answers, and that the neighbour works as before."""
        async with asyncio.timeout(ANSWER_S):
            await self.runtime.check()
            assert self.neighbour is not None
            assert await self.works(self.neighbour)

    async def quiet(self, slots: int = 1) -> None:
        """Wait until nothing is there but forkers, and one child waiting for each."""
        wanted = self._most_idle(slots)
        await until(lambda: len(self.host.processes()) == wanted, what=self._tell_noise)

    def _tell_noise(self) -> object:
        return self.host.processes(), self.ended, self.host.log()[-2000:]

    def _most_idle(self, slots: int) -> int:
        return 2 * (slots + (self.neighbour is not None))

    async def nothing_runs(self, sandbox: Sandbox) -> bool:
        """Whether nothing of the last execution of the only sandbox runs on, now."""
        return len(self.host.processes()) <= self._most_idle(1)

    def count_groups(self) -> int:
        """Control groups of sandboxes that somebody uses."""
        return len(self.host.groups()) - (self.neighbour is not None)

    async def works(self, sandbox: Sandbox) -> bool:
        """Whether a sandbox runs code as if nothing had happened."""
        ran = await self.run(sandbox, "print('works')")
        return (ran.status, ran.stdout, ran.stderr) == (ExecutionStatus.COMPLETED, b"works\n", b"")

    async def hello_s(self, sandbox: Sandbox) -> float:
        """How long a hello takes; the quick ones of some, because others are at work on this machine, too."""
        samples = []
        for _round in range(15):
            started = time.perf_counter()
            assert await self.works(sandbox)
            samples.append(time.perf_counter() - started)
        return sorted(samples)[4]
