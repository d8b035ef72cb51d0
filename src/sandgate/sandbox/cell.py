"""One execution in a session: it holds the deadline, the caps and the word on how it ended."""

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial

from sandgate.core.execution import ErrorReport, ExecutionRequest, Termination
from sandgate.core.limits import Limits
from sandgate.core.session import Bundle
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.endings import error_of, exit_code_of, usage_of
from sandgate.sandbox.meter import NOTHING, Metering
from sandgate.sandbox.output import OutputStream
from sandgate.sandbox.session_channel import Done
from sandgate.sandbox.timed import Timed
from sandgate_agent import wire

# Short cells are read once, at their end; from here on output is read as it comes.
_WATCH_AFTER_S = 0.003


class Cell(Timed):
    """See :class:`sandgate.sandbox.base.RunningExecution`. ``stop`` is called once it is to end before its own end."""

    def __init__(self, request: ExecutionRequest, limits: Limits, stop: Callable[["Cell"], None]) -> None:
        super().__init__(request.timeout_s)
        self.request = request
        self._limits = limits
        self._stop = stop
        self._result: asyncio.Future[Termination] = asyncio.get_running_loop().create_future()
        self._timers: list[asyncio.TimerHandle] = []
        self._streams: tuple[OutputStream, OutputStream] | None = None
        self._results: list[Bundle] = []
        self._metering: Metering | None = None
        self.cause: ExecutionStatus | None = None

    # For whoever waits

    async def wait(self) -> Termination:
        """See :class:`sandgate.sandbox.base.RunningExecution`."""
        return await asyncio.shield(self._result)

    def cancel(self) -> None:
        """See :class:`sandgate.sandbox.base.RunningExecution`. The session goes on, if the code lets it."""
        self.end(ExecutionStatus.CANCELLED)

    @property
    def ended(self) -> bool:
        """Whether the answer is there."""
        return self._result.done()

    @property
    def is_seen(self) -> bool:
        """Whether somebody sees what it writes and shows, in the order in which it does."""
        return self.request.watch is not None

    # For its session

    def start(self, stdout: int, stderr: int, metering: Metering) -> None:
        """It has the pipes from now on."""
        loop = asyncio.get_running_loop()
        self._metering = metering
        self._begin_time(0.0)
        self._streams = self._stream("stdout", stdout), self._stream("stderr", stderr)
        request = self.request
        if request.tap is not None:
            request.tap.open({"stdout": self._streams[0], "stderr": self._streams[1]})
        if request.watch is not None:
            request.watch.begin()
        self._timers = [loop.call_later(_WATCH_AFTER_S if request.watch is None else 0.0, self._watch)]

    def _over(self) -> None:
        self.end(ExecutionStatus.TIMED_OUT)

    def _has_ended(self) -> bool:
        return self.ended

    def _stream(self, name: str, descriptor: int) -> OutputStream:
        keep, drop, watch = self._limits.output_bytes, self._limits.drained_output_bytes, self.request.watch
        if watch is None:
            return OutputStream(descriptor, keep, drop, self._on_flood)
        return OutputStream(descriptor, keep, watch.most_bytes, self._on_flood, None, partial(watch.put, name))

    def _watch(self) -> None:
        for stream in self._streams or ():
            stream.watch()

    def _on_flood(self) -> None:
        self.end(ExecutionStatus.OUTPUT_LIMIT)
        for stream in self._streams or ():
            stream.tolerate()

    def show(self, bundle: Bundle) -> None:
        """The code shows something: after all that it has written before."""
        self._results.append(bundle)
        if self.request.watch is not None:
            for stream in self._streams or ():
                stream.catch_up()
            self.request.watch.show(bundle)

    def end(self, cause: ExecutionStatus) -> None:
        """End it for a reason that is not its own; the first reason stands."""
        if self.cause is not None or self.ended:
            return
        self.cause = cause
        if self._streams is None:
            self._resolve(None, None, None)
            return
        self._stop(self)

    def finish(self, done: Done) -> None:
        """The session says that it has ended."""
        for stream in self._streams or ():
            stream.release()
        error = None if done.error is None else ErrorReport(*done.error)
        if error is None and done.exit_code:
            error = ErrorReport("NonZeroExit", f"exit code {done.exit_code}", "")
        told = wire.Exited(0, 0, done.cpu_us, 0, done.peak_memory_bytes)
        self._resolve(done.exit_code, error, told, truncated=done.dropped > 0)

    def lose(self, exited: wire.Exited | None) -> None:
        """The session has ended under it; ``exited`` None: with its slot."""
        for stream in self._streams or ():
            stream.release()
        if exited is None:
            self.cause = self.cause or ExecutionStatus.LOST
            self._resolve(None, None, None)
            return
        code = exit_code_of(exited)
        self._resolve(code, error_of(exited, code, None), None)

    def _resolve(
        self,
        exit_code: int | None,
        error: ErrorReport | None,
        told: wire.Exited | None,
        *,
        truncated: bool = False,
    ) -> None:
        self._forget_limit()
        for timer in self._timers:
            timer.cancel()
        if self.ended:
            return
        status = self.cause or (ExecutionStatus.FAILED if exit_code else ExecutionStatus.COMPLETED)
        stdout, stderr = self._streams or (None, None)
        self._result.set_result(
            Termination(
                status=status,
                exit_code=exit_code if self.cause is None else None,
                stdout=stdout.kept() if stdout else b"",
                stderr=stderr.kept() if stderr else b"",
                stdout_truncated=stdout is not None and stdout.truncated,
                stderr_truncated=stderr is not None and stderr.truncated,
                error=error if status is ExecutionStatus.FAILED else None,
                duration_s=self.age_s if self._streams else 0.0,
                usage=usage_of(told, NOTHING if self._metering is None else self._metering.end()),
                results=tuple(self._results),
                results_truncated=truncated,
            )
        )


def describe_end(exited: wire.Exited) -> str:
    """Why a session is over, for a person."""
    if os.WIFSIGNALED(exited.wait_status):
        number = os.WTERMSIG(exited.wait_status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"its process was ended by {name}"
    return f"its process ended with exit code {os.WEXITSTATUS(exited.wait_status)}"
