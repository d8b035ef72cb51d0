"""A runtime without sandboxes: it keeps the promises of ``Runtime`` and runs what ``fake_code`` understands."""

import asyncio
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from sandgate.core.byte_stream import Stream, connect
from sandgate.core.errors import LauncherUnavailable, SandboxFailed, SandgateError, TooManyExecutions
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import Limits
from sandgate.core.network import NetworkReport, NetworkRules, NetworkTotals
from sandgate.core.session import SessionRequest
from sandgate.core.states import ExecutionStatus, Isolation
from sandgate.sandbox.base import Resumed, SandboxSpec, SandboxUsage
from sandgate.testing.fake_copies import FakeCopies
from sandgate.testing.fake_execution import USAGE, FakeExecution
from sandgate.testing.fake_session import FakeSession
from sandgate.testing.fake_standstill import FakeStandstill
from sandgate.testing.fake_volumes import FakeVolumes

_QUEUE_LENGTH = 64


class FakeNetwork:
    """Remembers what may be reached; nobody reaches anything. ``failure`` is raised instead.

    What listens inside are ``ports``: the address of each on this machine.
    """

    def __init__(self) -> None:
        self.ports: dict[int, tuple[str, int]] = {}
        self.rules: NetworkRules | None = None
        self.failure: SandgateError | None = None

    async def allow(self, rules: NetworkRules, owner: str) -> None:  # noqa: ARG002 - nobody counts
        """See ``SandboxNetwork``."""
        if self.failure is not None:
            raise self.failure
        self.rules = rules

    async def close(self) -> None:
        """See ``SandboxNetwork``."""
        self.rules = None

    async def dial(self, port: int) -> Stream:
        """See ``SandboxNetwork``."""
        if port not in self.ports:
            raise ConnectionRefusedError
        return await connect(*self.ports[port])

    async def report(self) -> NetworkReport:
        """See ``SandboxNetwork``."""
        if self.failure is not None:
            raise self.failure
        return NetworkReport(self.rules, NetworkTotals(), ())


class FakeSandbox:
    """Lives until it is destroyed, killed, or its lifetime is over."""

    def __init__(self, spec: SandboxSpec, on_end: Callable[["FakeSandbox"], None]) -> None:
        self.spec = spec
        self.on_end = on_end
        self.network = FakeNetwork()
        self._failure: str | None = None
        self.tagged: dict[str, FakeExecution] = {}
        self._running: set[FakeExecution] = set()
        self._queue: deque[FakeExecution] = deque()
        self.apart: list[FakeExecution] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        # Processes of this machine, which have to be waited for.
        self.workers: set[asyncio.Future[None]] = set()
        self.sessions: set[FakeSession] = set()
        self._timer = self._lifetime(spec.lifetime_s)
        self.standstill = FakeStandstill(self)

    @property
    def is_idle(self) -> bool:
        """See ``Sandbox``."""
        return not self._running and not self._queue

    @property
    def environment_id(self) -> EnvironmentId:
        """See ``Sandbox``."""
        return self.spec.environment_id

    @property
    def failure(self) -> str | None:
        """See ``Sandbox``."""
        return self._failure

    def execute(self, request: ExecutionRequest) -> FakeExecution:
        """See ``Sandbox``."""
        if self._failure is not None:
            raise SandboxFailed(f"The sandbox of {self.environment_id} has ended: {self._failure}")
        if len(self._queue) >= _QUEUE_LENGTH:
            raise TooManyExecutions(f"{_QUEUE_LENGTH} executions of {self.environment_id} are queued already")
        execution = FakeExecution(self, request)
        if request.tag is not None:
            self.tagged[request.tag] = execution
        self._queue.append(execution)
        self.start_next()
        return execution

    def open_session(self, request: SessionRequest) -> FakeSession:
        """See ``Sandbox``."""
        if self._failure is not None:
            raise SandboxFailed(f"The sandbox of {self.environment_id} has ended: {self._failure}")
        session = FakeSession(request, self.spec.limits, self.folder())
        self.sessions.add(session)
        session.on_over(lambda: self.sessions.discard(session))
        return session

    async def extend(self, lifetime_s: float) -> None:
        """See ``Sandbox``."""
        if self._failure is not None:
            raise SandboxFailed(f"The sandbox of {self.environment_id} has ended: {self._failure}")
        self._timer.cancel()
        self._timer = self._lifetime(lifetime_s)

    async def usage(self) -> SandboxUsage:
        """See ``Sandbox``. Of each execution that runs one process, and nothing else."""
        if self._failure is not None:
            raise SandboxFailed(f"The sandbox of {self.environment_id} has ended: {self._failure}")
        running = len(self._running)
        return SandboxUsage(
            memory_bytes=USAGE.peak_memory_bytes,
            peak_memory_bytes=USAGE.peak_memory_bytes,
            cpu_us=1000 * USAGE.cpu_ms,
            processes=running,
            peak_processes=running,
            disk_bytes=0,
            peak_disk_bytes=0,
            inodes=0,
            out_of_memory_kills=0,
        )

    def forget(self, execution: FakeExecution) -> None:
        """An execution has ended, so that the next one may start."""
        self._running.discard(execution)
        if execution in self._queue:
            self._queue.remove(execution)
        self.start_next()

    def start_next(self) -> None:
        """Start what waits, as far as it may run now."""
        while self._can_start and self._queue:
            self._start(self._queue.popleft())

    @property
    def _can_start(self) -> bool:
        return not self.standstill.is_on and len(self._running) < self.spec.limits.concurrent_executions

    def running(self) -> Collection[FakeExecution]:
        """What has begun and not ended."""
        return tuple(self._running)

    def folder(self) -> str:
        """Its work folder, made when it is needed."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="sandgate-fake-")
        folder = Path(self._folder.name, "workspace")
        folder.mkdir(exist_ok=True)
        return str(folder)

    def die(self, reason: str) -> None:
        """End it with all that runs in it; its runtime is told."""
        if self._failure is not None:
            return
        self._failure = reason
        self._timer.cancel()
        self.lose_executions()
        if self._folder is not None:
            self._folder.cleanup()
        self.on_end(self)

    def lose_executions(self) -> None:
        """End what runs and what waits: there is nobody left to answer to."""
        queued = list(self._queue)
        self._queue.clear()
        for execution in [*self._running, *self.apart, *queued]:
            execution.end(ExecutionStatus.LOST)
        for session in list(self.sessions):
            session.destroy("its sandbox ended")

    def hand_over(self) -> None:
        """Its gateway has gone: what runs with a tag goes on for the next one, all else has nobody to answer to."""
        tagged = [execution for execution in self._running if execution.tag is not None]
        following = [execution.hand_over() for execution in tagged]
        self.lose_executions()
        self._running = {execution for execution in following if not execution.ended}
        self.tagged |= {execution.tag: execution for execution in following if execution.tag is not None}

    def _start(self, execution: FakeExecution) -> None:
        self._running.add(execution)
        execution.start()

    def _lifetime(self, lifetime_s: float) -> asyncio.TimerHandle:
        self.lifetime_s = lifetime_s
        return asyncio.get_running_loop().call_later(lifetime_s, self.die, "expired")


class FakeRuntime:
    """``Runtime`` for tests.

    ``machine`` is what outlives a gateway: a second runtime on the same dict adopts what the first one left.
    What is to happen is set on the instance: ``create_delay_s``, ``create_failure`` (raised instead of making),
    ``gate`` (making waits until it is set), ``unavailable`` (every call to the launcher raises it).
    """

    def __init__(
        self,
        machine: dict[EnvironmentId, FakeSandbox] | None = None,
        isolation: Isolation = Isolation.STANDARD,
        others: Collection[Isolation] = (),
    ) -> None:
        """``others`` are the classes that it makes beside ``isolation``."""
        self.sandboxes: dict[EnvironmentId, FakeSandbox] = {} if machine is None else machine
        self.create_delay_s = 0.0
        self.create_failure: SandgateError | None = None
        self.gate: asyncio.Event | None = None
        self.unavailable = False
        self.pausable = True
        self.made: list[SandboxSpec] = []
        self.making = 0
        self.most_making = 0
        self._isolation = isolation
        self._isolations = (isolation, *others)
        self._kept: dict[str, FakeSandbox] = {}
        self._unclaimed: set[EnvironmentId] = set()
        self.holds = 0
        self.volumes = FakeVolumes(self._check)
        self.copies = FakeCopies(lambda: self.sandboxes, self._check)
        self._on_end: Callable[[EnvironmentId, str], None] | None = None

    @property
    def isolation(self) -> Isolation:
        """See ``Runtime``."""
        return self._isolation

    @property
    def isolations(self) -> Collection[Isolation]:
        """See ``Runtime``."""
        return self._isolations

    def can_pause(self, isolation: Isolation) -> bool:
        """See ``Runtime``."""
        return self.pausable and isolation is not Isolation.PROCESS

    async def start(self, on_end: Callable[[EnvironmentId, str], None]) -> None:
        """See ``Runtime``."""
        self._check()
        self._on_end = on_end

    async def adopt(self, expected: Mapping[EnvironmentId, Limits]) -> Sequence[FakeSandbox]:
        """See ``Runtime``."""
        self._check()
        self._kept = {tag: sandbox for sandbox in self.sandboxes.values() for tag in sandbox.tagged}
        kept = {sandbox.environment_id for sandbox in self._kept.values()}
        for environment_id in set(self.sandboxes) - set(expected) - kept:
            await self.destroy(environment_id)
        self._unclaimed = set(self.sandboxes) - set(expected)
        for sandbox in self.sandboxes.values():
            sandbox.hand_over()
            sandbox.on_end = self._ended
        return [sandbox for sandbox in self.sandboxes.values() if sandbox.environment_id in expected]

    def kept(self) -> Collection[str]:
        """See ``Runtime``."""
        return frozenset(self._kept)

    def read_note(self, environment_id: EnvironmentId, tag: str) -> bytes | None:
        """See ``Runtime``."""
        sandbox = self.sandboxes.get(environment_id)
        execution = None if sandbox is None else sandbox.tagged.get(tag)
        return None if execution is None else execution.note

    async def resume(self, request: ExecutionRequest, limits: Limits) -> Resumed | None:  # noqa: ARG002 - it has them
        """See ``Runtime``."""
        tag = request.tag or ""
        sandbox = self._kept.pop(tag, None)
        if sandbox is None:
            return None
        self._unclaimed.discard(sandbox.environment_id)
        execution = sandbox.tagged[tag]
        if request.tap is not None:
            execution.open_tap(request.tap)
        return Resumed(sandbox, execution, execution.age_s)

    def resume_session(self, request: SessionRequest) -> FakeSession | None:  # noqa: ARG002 - they end with a gateway
        """See ``Runtime``."""
        return None

    async def discard(self, but: Collection[str] = ()) -> None:
        """See ``Runtime``."""
        for tag in [tag for tag in self._kept if tag not in but]:
            sandbox = self._kept.pop(tag)
            if sandbox.environment_id in self._unclaimed:
                await self.destroy(sandbox.environment_id)
            else:
                sandbox.tagged.pop(tag).cancel()

    def let_go(self, tag: str) -> None:
        """See ``Runtime``."""
        for sandbox in self.sandboxes.values():
            sandbox.tagged.pop(tag, None)

    def hold(self) -> None:
        """See ``Runtime``."""
        self.holds += 1

    async def create(self, spec: SandboxSpec) -> FakeSandbox:
        """See ``Runtime``."""
        self.making += 1
        self.most_making = max(self.most_making, self.making)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.create_delay_s:
                await asyncio.sleep(self.create_delay_s)
        finally:
            self.making -= 1
        self._check()
        if self.create_failure is not None:
            raise self.create_failure
        if spec.environment_id in self.sandboxes:
            raise SandboxFailed(f"There is a sandbox of {spec.environment_id} already")
        sandbox = FakeSandbox(spec, self._ended)
        self.sandboxes[spec.environment_id] = sandbox
        self.made.append(spec)
        return sandbox

    async def destroy(self, environment_id: EnvironmentId) -> None:
        """See ``Runtime``."""
        self._check()
        sandbox = self.sandboxes.pop(environment_id, None)
        if sandbox is not None:
            sandbox.die("destroyed")
            await asyncio.gather(*sandbox.workers, return_exceptions=True)

    async def check(self) -> None:
        """See ``Runtime``."""
        self._check()

    async def stop(self, *, keep_sandboxes: bool) -> None:
        """See ``Runtime``."""
        self._on_end = None
        if keep_sandboxes:
            for sandbox in self.sandboxes.values():
                sandbox.hand_over()
        else:
            for sandbox in list(self.sandboxes.values()):
                sandbox.die("the runtime was stopped")
            self.sandboxes.clear()

    def wake(self) -> None:
        """Let all that sleeps come to its end at once."""
        for sandbox in list(self.sandboxes.values()):
            for execution in sandbox.running():
                execution.wake()

    def kill(self, environment_id: EnvironmentId, reason: str) -> None:
        """Let a sandbox die unasked."""
        self.sandboxes[environment_id].die(reason)

    def _check(self) -> None:
        if self.unavailable:
            raise LauncherUnavailable("The fake launcher is away")

    def _ended(self, sandbox: FakeSandbox) -> None:
        """Tell the service, unless it asked for this end: destroyed sandboxes are taken out of the dict first."""
        if self.sandboxes.get(sandbox.environment_id) is sandbox:
            del self.sandboxes[sandbox.environment_id]
            if self._on_end is not None and sandbox.failure is not None:
                self._on_end(sandbox.environment_id, sandbox.failure)
