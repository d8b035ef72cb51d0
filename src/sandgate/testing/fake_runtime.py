"""A runtime without sandboxes: it keeps the promises of ``Runtime`` and runs what ``fake_code`` understands."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from sandgate.core.errors import LauncherUnavailable, SandboxFailed, SandgateError, TooManyExecutions
from sandgate.core.execution import ExecutionRequest, Termination, Usage
from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import Limits
from sandgate.core.output_tap import OutputTap
from sandgate.core.output_watch import OutputWatch
from sandgate.core.states import ExecutionStatus, Isolation
from sandgate.sandbox.base import Resumed, SandboxSpec, SandboxUsage
from sandgate.testing.fake_code import Outcome, interpret

_USAGE = Usage(cpu_ms=1, peak_memory_bytes=9 * 1024 * 1024)
_QUEUE_LENGTH = 64
_PIECE = 65_536


class FakeSource:
    """See ``OutputSource``."""

    def __init__(self, text: bytes) -> None:
        self.on_kept: Callable[[bytes], None] | None = None
        self._text = text

    def kept(self) -> bytes:
        """See ``OutputSource``."""
        return self._text


class FakeExecution:
    """Ends when its code would, when its time is over, when it is cancelled, or with its sandbox."""

    def __init__(self, sandbox: "FakeSandbox", request: ExecutionRequest) -> None:
        self._sandbox = sandbox
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Termination] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._started_at: float | None = None

    async def wait(self) -> Termination:
        """See ``RunningExecution``."""
        return await asyncio.shield(self._ended)

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self._ended.done()

    def cancel(self) -> None:
        """See ``RunningExecution``."""
        self.end(ExecutionStatus.CANCELLED)

    @property
    def age_s(self) -> float:
        """How long ago it began."""
        return 0.0 if self._started_at is None else self._loop.time() - self._started_at

    @property
    def tag(self) -> str | None:
        """By which a later gateway finds it."""
        return self._request.tag

    def start(self) -> None:
        """Begin to run; until then it is queued."""
        self._started_at = self._loop.time()
        self._go_on()

    def hand_over(self) -> "FakeExecution":
        """What goes on for the next gateway; whoever waits for this one hears that it is lost."""
        following = FakeExecution(self._sandbox, replace(self._request, tap=None, watch=None))
        following._started_at = self._started_at
        self.end(ExecutionStatus.LOST)
        following._go_on()
        return following

    def open_tap(self, tap: OutputTap) -> None:
        """Let somebody see its output. All that it prints it prints at once."""
        outcome = self._interpret()
        limit = self._sandbox.spec.limits.output_bytes
        streams = {"stdout": outcome.stdout, "stderr": outcome.stderr}
        tap.open({name: FakeSource(bytes(text[:limit])) for name, text in streams.items()})

    def _interpret(self) -> Outcome:
        request = self._request
        return interpret(request.code, self._sandbox.spec.limits, request.data, request.around)

    def _go_on(self) -> None:
        outcome = self._interpret()
        if self._request.tap is not None:
            self.open_tap(self._request.tap)
        if self._request.watch is None:
            self._run(outcome)
            return
        self._request.watch.begin()
        streams = (("stdout", bytes(outcome.stdout)), ("stderr", bytes(outcome.stderr)))
        pieces = [(name, text[i : i + _PIECE]) for name, text in streams for i in range(0, len(text), _PIECE)]
        self._show(self._request.watch, deque(pieces), outcome)

    def _show(self, watch: OutputWatch, pieces: deque[tuple[str, bytes]], outcome: Outcome) -> None:
        """Write as fast as it is taken, and go on with the code after that."""
        while pieces and not self.ended:
            if not watch.put(*pieces.popleft(), lambda: self._show(watch, pieces, outcome)):
                return
        if not self.ended:
            self._run(outcome)

    def _run(self, outcome: Outcome) -> None:
        age_s = self._loop.time() - (self._started_at or 0.0)
        timeout_s = self._request.timeout_s
        if outcome.sleep_s is None or outcome.sleep_s >= timeout_s:
            self._timer = self._loop.call_later(timeout_s - age_s, self.end, ExecutionStatus.TIMED_OUT, outcome)
        elif outcome.sleep_s:
            self._timer = self._loop.call_later(outcome.sleep_s - age_s, self.end, outcome.status, outcome)
        else:
            self.end(outcome.status, outcome)

    def end(self, status: ExecutionStatus, outcome: Outcome | None = None) -> None:
        """Settle it, unless it is settled."""
        if self._ended.done():
            return
        if self._timer is not None:
            self._timer.cancel()
        self._ended.set_result(self._termination(status, outcome or Outcome()))
        self._sandbox.forget(self)

    def _termination(self, status: ExecutionStatus, outcome: Outcome) -> Termination:
        limit = self._sandbox.spec.limits.output_bytes
        own = status is outcome.status
        return Termination(
            status=status,
            exit_code=outcome.exit_code if own else None,
            stdout=bytes(outcome.stdout[:limit]),
            stderr=bytes(outcome.stderr[:limit]),
            stdout_truncated=len(outcome.stdout) > limit,
            stderr_truncated=len(outcome.stderr) > limit,
            error=outcome.error if own else None,
            duration_s=0.0 if self._started_at is None else self._loop.time() - self._started_at,
            usage=_USAGE,
            outputs=outcome.pack_outputs() if own else None,
        )


class FakeSandbox:
    """Lives until it is destroyed, killed, or its lifetime is over."""

    def __init__(self, spec: SandboxSpec, on_end: Callable[["FakeSandbox"], None]) -> None:
        self.spec = spec
        self.on_end = on_end
        self._failure: str | None = None
        self.tagged: dict[str, FakeExecution] = {}
        self._running: set[FakeExecution] = set()
        self._queue: deque[FakeExecution] = deque()
        self._timer = self._lifetime(spec.lifetime_s)

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
        if len(self._running) < self.spec.limits.concurrent_executions:
            self._start(execution)
        else:
            self._queue.append(execution)
        return execution

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
            memory_bytes=_USAGE.peak_memory_bytes,
            peak_memory_bytes=_USAGE.peak_memory_bytes,
            cpu_us=1000 * _USAGE.cpu_ms,
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
        while self._queue and len(self._running) < self.spec.limits.concurrent_executions:
            self._start(self._queue.popleft())

    def die(self, reason: str) -> None:
        """End it with all that runs in it; its runtime is told."""
        if self._failure is not None:
            return
        self._failure = reason
        self._timer.cancel()
        self.lose_executions()
        self.on_end(self)

    def lose_executions(self) -> None:
        """End what runs and what waits: there is nobody left to answer to."""
        queued = list(self._queue)
        self._queue.clear()
        for execution in [*self._running, *queued]:
            execution.end(ExecutionStatus.LOST)

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
        self.made: list[SandboxSpec] = []
        self.making = 0
        self.most_making = 0
        self._isolation = isolation
        self._isolations = (isolation, *others)
        self._kept: dict[str, FakeSandbox] = {}
        self._unclaimed: set[EnvironmentId] = set()
        self.holds = 0
        self._on_end: Callable[[EnvironmentId, str], None] | None = None

    @property
    def isolation(self) -> Isolation:
        """See ``Runtime``."""
        return self._isolation

    @property
    def isolations(self) -> Collection[Isolation]:
        """See ``Runtime``."""
        return self._isolations

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
