"""One session, as the gateway sees it: a child that stays in its slot, and the executions that wait for each other.

Everything that it sends is hostile: what does not fit the protocol ends the session, and no more.
"""

import asyncio
import os
import secrets
import signal
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sandgate.core.errors import SessionBusy, SessionEnded
from sandgate.core.execution import ExecutionRequest
from sandgate.core.limits import Limits
from sandgate.core.session import BackgroundOutput, SessionLanguage, SessionRequest, SessionStatus
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.background import Background
from sandgate.sandbox.cell import Cell, describe_end
from sandgate.sandbox.execution import WaitingChild
from sandgate.sandbox.kernel_kills import KernelKills
from sandgate.sandbox.meter import Meter, Metering
from sandgate.sandbox.payload import make_payload
from sandgate.sandbox.session_channel import FrameLimits, SessionChannel, parse_done, parse_result
from sandgate.sandbox.session_interrupts import SessionInterrupts
from sandgate.sandbox.timed import StandsStill
from sandgate_agent import session_wire, wire

# How long it may take to be ready, and to be dead.
_READY_LIMIT_S = 20.0
_CONFIRM_LIMIT_S = 5.0
_LAST_WORD_S = 1.0
_MOST_SAID = 500
_OUT_OF_MEMORY = "it ran out of memory"
_LOST = "its sandbox ended"
_NOT_TAKEN_UP = "what ran in it when the service was gone did not come to its end"

Surround = Callable[[ExecutionRequest], ExecutionRequest]


def as_it_is(request: ExecutionRequest) -> ExecutionRequest:
    """There is no network."""
    return request


class SandboxSession(StandsStill):
    """See :class:`sandgate.sandbox.base.RunningSession`.

    In its slot and in the queue of the sandbox it stands where an execution does. ``interrupt`` is given by the slot.
    """

    is_last = False
    # It stays beside what is executed.
    is_command = True

    def __init__(
        self,
        request: SessionRequest,
        limits: Limits,
        kernel_kills: KernelKills,
        surround: Surround = as_it_is,
    ) -> None:
        """``surround`` adds what code needs to find the network."""
        super().__init__()
        loop = asyncio.get_running_loop()
        self._request = request
        self._limits = limits
        self._kernel_kills = kernel_kills
        self._surround = surround
        self._surroundings: Mapping[str, str] = {}
        self._ready: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[str] = loop.create_future()
        self._queue: deque[Cell] = deque()
        self._running: Cell | None = None
        self._child: WaitingChild | None = None
        self._channel: SessionChannel | None = None
        self._background: Background | None = None
        self._kill: Callable[[], None] | None = None
        self._begin_metering: Callable[[], Metering] = Meter().begin
        self._interrupts = SessionInterrupts(self._timers, lambda: self._break("it could not be interrupted"))
        self._reason: str | None = None
        self._kills_before = 0
        self._judging: asyncio.Future[None] | None = None
        self._shown = self._json_left = 0
        self.executions = 0

    # For the use cases

    @property
    def tag(self) -> str | None:
        """By which a later gateway may take it up."""
        return self._request.tag

    @property
    def status(self) -> SessionStatus:
        """See :class:`sandgate.sandbox.base.RunningSession`."""
        if self._over.done():
            return SessionStatus.ENDED
        if not self._ready.done():
            return SessionStatus.STARTING
        return SessionStatus.BUSY if self._running or self._queue else SessionStatus.IDLE

    @property
    def reason(self) -> str | None:
        """See :class:`sandgate.sandbox.base.RunningSession`."""
        return self._over.result() if self._over.done() else None

    @property
    def queued(self) -> int:
        """See :class:`sandgate.sandbox.base.RunningSession`."""
        return sum(not cell.ended for cell in self._queue)

    @property
    def background(self) -> BackgroundOutput:
        """See :class:`sandgate.sandbox.base.RunningSession`."""
        return BackgroundOutput() if self._background is None else self._background.output

    async def wait_until_ready(self) -> None:
        """See :class:`sandgate.sandbox.base.RunningSession`."""
        both: list[asyncio.Future[Any]] = [self._ready, self._over]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if self._over.done():
            said = self.background.stderr.decode("utf-8", "replace")[-_MOST_SAID:]
            raise SessionEnded(
                f"The session ended before it had begun: {self.reason}: {said}", {"status_reason": self.reason}
            )

    async def wait(self) -> str:
        """See :class:`sandgate.sandbox.base.RunningSession`."""
        return await asyncio.shield(self._over)

    def on_over(self, act: Callable[[], None]) -> None:
        """Act once it has ended."""
        self._over.add_done_callback(lambda _over: act())

    def execute(self, request: ExecutionRequest) -> Cell:
        """See :class:`sandgate.sandbox.base.RunningSession`."""
        if self._over.done() or self._reason is not None:
            raise self._ended()
        limit = self._request.bounds.queued
        if self.queued >= limit + (self._running is None):
            raise SessionBusy(
                f"{limit} executions wait in this session already; try again when some have ended.", {"limit": limit}
            )
        cell = Cell(request, self._limits, self._stop)
        self._queue.append(cell)
        self._go_on()
        return cell

    def interrupt(self) -> bool:
        """See :class:`sandgate.sandbox.base.RunningSession`."""
        if self._running is None:
            return False
        self._interrupts.send(self._running)
        return True

    def end(self, reason: str) -> None:
        """See :class:`sandgate.sandbox.base.RunningSession`. The first reason stands."""
        if self._over.done() or self._reason is not None:
            return
        self._reason = reason
        for cell in [*self._queue, *([self._running] if self._running else [])]:
            cell.cause = cell.cause or ExecutionStatus.CANCELLED
        if self._kill is None:
            self._finish(None)
            return
        self._kill()
        self._timers.set("confirm", _CONFIRM_LIMIT_S, lambda: self._finish(None))

    def _ended(self) -> SessionEnded:
        reason = self.reason or self._reason or _LOST
        return SessionEnded(
            f"The session has ended: {reason}. Restart it, or make another one.", {"status_reason": reason}
        )

    # For the slot and the queue that it waits in

    @property
    def ended(self) -> bool:
        """Whether it needs no child any more."""
        return self._over.done()

    def share(self) -> None:
        """See ``Running``."""

    def start(
        self,
        child: WaitingChild,
        kills_before: int,
        kill: Callable[[], None],
        keep: Callable[[], None] | None = None,
    ) -> None:
        """Make a session of the child."""
        if keep is not None:
            # Before it is told: whoever comes after this gateway finds it if it has begun.
            keep()
        self._take(child, kills_before, kill)
        request = self._request
        arguments = {"language": request.language.value, "cwd": request.cwd, "env": dict(request.env)}
        self._say(wire.pack_session(arguments))

    def resume(
        self, child: WaitingChild, age_s: float, kill: Callable[[], None], kills_before: int, *, has_ended: bool
    ) -> None:
        """Go on with a session of an earlier gateway: what that one ran is interrupted, and what it said is skipped.

        One that does not come to its end within the grace is ended, and so is one that had been told half a cell.
        """
        del age_s
        self._take(child, kills_before, kill)
        assert self._channel is not None  # noqa: S101 - just made
        if not has_ended:
            self._timers.set("ready", self._request.bounds.grace_s, lambda: self._kill_for(_NOT_TAKEN_UP))
            self._interrupts.send(None)
            self._channel.skip_to(secrets.token_bytes(session_wire.MARK_BYTES))

    def interrupt_by(self, interrupt: Callable[[], None]) -> None:
        """How its slot interrupts it."""
        self._interrupts.send_by(interrupt)

    def measured_by(self, begin: Callable[[], Metering]) -> None:
        """How the time of a cell is counted from outside."""
        self._begin_metering = begin

    def _take(self, child: WaitingChild, kills_before: int, kill: Callable[[], None]) -> None:
        self._child, self._kills_before, self._kill = child, kills_before, kill
        self._channel = SessionChannel(child.channel, self._on_frame, self._break)
        bounds = self._request.bounds
        most = self._limits.drained_output_bytes
        self._background = Background(child.stdout, child.stderr, bounds.background_bytes, most)
        self._background.begin()
        self._timers.set("ready", _READY_LIMIT_S, lambda: self._break("it did not become ready in time"))

    def on_interrupted(self) -> None:
        """The slot has passed on an interrupt."""
        self._interrupts.confirm()
        self._go_on()

    def on_exited(self, exited: wire.Exited) -> None:
        """See ``Running``."""
        killed = os.WIFSIGNALED(exited.wait_status) and os.WTERMSIG(exited.wait_status) == signal.SIGKILL
        if killed and self._reason is None and not self._over.done():
            self._judging = asyncio.ensure_future(self._judge(exited))
            return
        self._finish(exited)

    async def _judge(self, exited: wire.Exited) -> None:
        if await self._kernel_kills.have_killed(self._kills_before):
            self._blame_memory()
        self._finish(exited)

    def end_for_memory(self) -> None:
        """See ``Running``."""
        self._blame_memory()
        if self._kill is not None:
            self._kill()

    def _blame_memory(self) -> None:
        if self._reason is None:
            self._reason = _OUT_OF_MEMORY
            if self._running is not None:
                self._running.cause = self._running.cause or ExecutionStatus.OUT_OF_MEMORY

    def on_lost(self) -> None:
        """See ``Running``."""
        self._finish(None)

    # Cells

    def _go_on(self) -> None:
        """Begin the next cell, if there is one and nothing speaks against it."""
        if not self._ready.done() or self._running is not None or self._reason is not None:
            return
        if self._interrupts.are_under_way:
            return
        while self._queue:
            cell = self._queue.popleft()
            if not cell.ended:
                self._begin(cell)
                return

    def _begin(self, cell: Cell) -> None:
        assert self._child is not None  # noqa: S101 - it is ready
        assert self._channel is not None  # noqa: S101 - it is ready
        assert self._background is not None  # noqa: S101 - it is ready
        self._background.end()
        self.executions += 1
        self._running, self._shown, self._json_left = cell, 0, session_wire.JSON_LIMIT
        bounds = self._request.bounds
        self._channel.limits = FrameLimits(bounds.results, bounds.result_bytes)
        cell.start(self._child.stdout, self._child.stderr, self._begin_metering())
        facts = {
            "number": self.executions,
            "results": bounds.results,
            "result_bytes": bounds.result_bytes,
            "in_order": cell.is_seen,
        }
        self._say(make_payload(self._with_network(cell.request), facts))

    def _with_network(self, request: ExecutionRequest) -> ExecutionRequest:
        """With what the session has not been told yet: variables stay in it, and its code may change them."""
        around = self._surround(ExecutionRequest("", 0)).around
        if around is None or around.env == self._surroundings:
            return request
        self._surroundings = around.env
        return self._surround(request)

    def _say(self, message: bytes) -> None:
        if message and self._channel is not None:
            self._channel.send(message)

    def _on_frame(self, kind: bytes, body: bytes) -> None:
        """Raises ``WireError``."""
        if kind == session_wire.READY and not self._ready.done():
            self._become_ready()
        elif kind == session_wire.MARK and not self._ready.done():
            self.executions = session_wire.parse_mark(body)
            self._become_ready()
        elif kind == session_wire.RESULT and self._running is not None:
            bundle, json_length = parse_result(body, self._json_left)
            self._json_left -= json_length
            self._running.show(bundle)
            self._shown += 1
            if self._running.is_seen:
                # What is written from now on comes behind it.
                self._say(wire.pack_code(b"", {"taken": self._shown}))
        elif kind == session_wire.MISSED and self._running is not None:
            is_shell = self._request.language is SessionLanguage.BASH
            self._say(self._interrupts.answer_missed(self._running, is_shell=is_shell))
        elif kind == session_wire.DONE and self._running is not None:
            self._end_cell(partial(self._running.finish, parse_done(body)))
            self._go_on()
        else:
            raise wire.WireError("a frame that was not asked for")

    def _become_ready(self) -> None:
        self._timers.cancel("ready")
        self._ready.set_result(None)
        self._go_on()

    def _end_cell(self, end: Callable[[], None]) -> None:
        self._running = None
        self._interrupts.end_cell()
        self._timers.cancel("grace")
        if self._channel is not None:
            self._channel.limits = FrameLimits()
        end()
        if self._background is not None:
            self._background.begin()

    def _stop(self, cell: Cell) -> None:
        """End a cell that runs: it is interrupted, and if it goes on, so that its session has to end."""
        grace_s = self._request.bounds.grace_s
        reason = f"its code went on for {grace_s:g} s after it was interrupted ({cell.cause})"
        self._interrupts.send(cell)
        self._timers.set("grace", grace_s, lambda: self._kill_for(reason))

    def _kill_for(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
            if self._running is not None:
                self._running.cause = self._running.cause or ExecutionStatus.LOST
            if self._kill is not None:
                self._kill()
            self._timers.set("confirm", _CONFIRM_LIMIT_S, lambda: self._finish(None))

    def _break(self, reason: str) -> None:
        """It does what no session does."""
        # Its end may be on the way, and then that says more.
        patience_s = _LAST_WORD_S if self._channel is not None and self._channel.has_ended else 0.0
        self._timers.set("broken", patience_s, lambda: self._kill_for(f"it broke off: {reason}"))

    # The end

    def _finish(self, exited: wire.Exited | None) -> None:
        if self._over.done():
            return
        # No further cell begins.
        self._reason = reason = self._reason or (_LOST if exited is None else describe_end(exited))
        if self._channel is not None:
            self._channel.read_rest()
        self._timers.close()
        running, self._running = self._running, None
        if running is not None:
            running.lose(exited)
        if self._background is not None:
            self._background.end()
        self._over.set_result(reason)
        if self._channel is not None:
            self._channel.close()
        if self._child is not None:
            os.close(self._child.stdout)
            os.close(self._child.stderr)
            self._child = None
        while self._queue:
            self._queue.popleft().lose(None)
