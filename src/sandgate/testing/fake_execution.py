"""Executions of the fake runtime."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Protocol

from sandgate.core.command_talk import CommandStart
from sandgate.core.execution import ExecutionRequest, FileOperation, OutputSink, Termination, Usage
from sandgate.core.output_tap import OutputTap
from sandgate.core.output_watch import OutputWatch
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.base import SandboxSpec
from sandgate.testing.fake_code import Outcome, interpret
from sandgate.testing.fake_commands import describe_exit, run_command
from sandgate.testing.fake_files import run_file_worker

USAGE = Usage(cpu_ms=1, peak_memory_bytes=9 * 1024 * 1024)
"""What each of them says that it has used."""
_PIECE = 65_536


class Home(Protocol):
    """The sandbox of an execution, as far as it has to know it."""

    spec: SandboxSpec
    workers: set[asyncio.Future[None]]

    def folder(self) -> str:
        """Its work folder."""
        ...

    def forget(self, execution: "FakeExecution") -> None:
        """The execution has ended."""
        ...


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

    def __init__(self, sandbox: Home, request: ExecutionRequest) -> None:
        self._sandbox = sandbox
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Termination] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._due: tuple[ExecutionStatus, Outcome | None] = (ExecutionStatus.TIMED_OUT, None)
        self._left_s: float | None = None
        self._stood_still_at = 0.0
        self._worker: asyncio.Future[None] | None = None
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

    @property
    def note(self) -> bytes | None:
        """What a later gateway is told of a command."""
        return None if self._request.command is None else self._request.command.note

    def start(self) -> None:
        """Begin to run; until then it is queued."""
        self._started_at = self._loop.time()
        self._go_on()

    def stand_still(self) -> None:
        """Its time does not go on."""
        self._stood_still_at = self._loop.time()
        if self._timer is not None and not self.ended:
            self._left_s = self._timer.when() - self._loop.time()
            self._timer.cancel()

    def go_on(self) -> None:
        """Its time goes on."""
        if self._started_at is not None:
            self._started_at += self._loop.time() - self._stood_still_at
        if self._left_s is not None and not self.ended:
            self._arm(self._left_s, *self._due)
        self._left_s = None

    def wake(self) -> None:
        """Let it sleep no longer: it ends as it would have in time."""
        self.end(*self._due)

    def _arm(self, delay_s: float, status: ExecutionStatus, outcome: Outcome | None = None) -> None:
        """End it then."""
        self._due = (status, outcome)
        self._timer = self._loop.call_later(delay_s, self.end, status, outcome)

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

    async def _work_on_files(self, operation: FileOperation, sink: OutputSink) -> None:
        code = await run_file_worker(self._sandbox.folder(), operation, sink)
        sink.close()
        self.end(ExecutionStatus.COMPLETED if code == 0 else ExecutionStatus.FAILED, Outcome())

    async def _stand_by(self, command: CommandStart, watch: OutputWatch) -> None:
        code, report = await run_command(self._sandbox.folder(), command, watch)
        outcome = Outcome(exit_code=code)
        if code:
            outcome.status = ExecutionStatus.FAILED
            outcome.error = report or describe_exit(code)
        self.end(outcome.status, outcome)

    def _go_on(self) -> None:
        if self._request.command is not None and self._request.watch is not None:
            self._request.watch.begin()
            self._work(self._stand_by(self._request.command, self._request.watch))
            age_s = self._loop.time() - (self._started_at or 0.0)
            self._timer = self._loop.call_later(self._request.timeout_s - age_s, self.end, ExecutionStatus.TIMED_OUT)
            return
        if self._request.files is not None and self._request.sink is not None:
            self._work(self._work_on_files(self._request.files, self._request.sink))
            self._arm(self._request.timeout_s, ExecutionStatus.TIMED_OUT)
            return
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

    def _work(self, work: Coroutine[object, object, None]) -> None:
        """In a process of this machine, which has to be waited for."""
        self._worker = asyncio.ensure_future(work)
        self._sandbox.workers.add(self._worker)
        self._worker.add_done_callback(self._sandbox.workers.discard)

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
            self._arm(timeout_s - age_s, ExecutionStatus.TIMED_OUT, outcome)
        elif outcome.sleep_s:
            self._arm(outcome.sleep_s - age_s, outcome.status, outcome)
        else:
            self.end(outcome.status, outcome)

    def end(self, status: ExecutionStatus, outcome: Outcome | None = None) -> None:
        """Settle it, unless it is settled."""
        if self._ended.done():
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._worker is not None:
            self._worker.cancel()
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
            usage=USAGE,
            outputs=outcome.pack_outputs() if own else None,
        )
