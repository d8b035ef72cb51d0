"""One execution, as the gateway sees it: it holds the deadline, the caps and the word on how it ended."""

import asyncio
import fcntl
import os
import signal
import socket
import sys
import termios
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from sandgate.core.execution import ExecutionRequest, Termination
from sandgate.core.limits import Limits
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.endings import error_of, exit_code_of, held_much, read_report, usage_of
from sandgate.sandbox.kept_output import Spool
from sandgate.sandbox.kernel_kills import KernelKills
from sandgate.sandbox.meter import NOTHING, Metering
from sandgate.sandbox.output import OutputStream
from sandgate.sandbox.payload import make_payload
from sandgate.sandbox.timed import Timed
from sandgate_agent import wire

# Short executions are read once, at their end; from here on output is read as it comes, or a little later.
_WATCH_AFTER_S = 0.003
# What ends sooner, or has used less of the processor for a while longer, could not fill a sandbox's memory and bear
# that a process of its own was killed for it. Processes that nobody waited for are not in what it has used.
_SLOW_S = 0.01
_LONG_S = 0.1
# What a socket takes whole. A child that has only a part of its code when this gateway dies would wait for ever.
_SENT_AT_ONCE_BYTES = 64 * 1024
# Source: include/uapi/asm-generic/socket.h
_SO_PEEK_OFF = 42
# How long the slot may take to confirm a kill before the answer leaves without it.
_CONFIRM_S = 0.035


@dataclass(frozen=True, slots=True)
class WaitingChild:
    """A child that waits for code: its number in the slot, and this side of its socket and pipes."""

    number: int
    channel: socket.socket
    stdout: int
    stderr: int

    def close(self) -> None:
        """Let go of a child that is not wanted."""
        self.channel.close()
        os.close(self.stdout)
        os.close(self.stderr)


class ZygoteExecution(Timed):
    """See :class:`sandgate.sandbox.base.RunningExecution`. ``is_last``: none is expected to follow in the sandbox.
    ``metering`` is set by whoever starts it, where there is something that counts.

    ``tag`` is what a later gateway may take it up by. With ``spool`` its output and its answer are left where that one
    finds them.
    """

    # Whether it is kept for a later gateway before it has what it is to do, and sent that again by one.
    _is_kept_first = True
    is_command = False

    def __init__(
        self,
        request: ExecutionRequest,
        limits: Limits,
        kernel_kills: KernelKills,
        spool: Spool | None = None,
    ) -> None:
        super().__init__(request.timeout_s)
        self._payload = make_payload(request)
        self.is_last = request.is_last
        self.tag = request.tag
        self._spool = spool
        self._keep: Callable[[], None] | None = None
        # What is only looked at is there for the next one; each look begins where the last one ended.
        self._receiving = socket.MSG_DONTWAIT | (socket.MSG_PEEK if spool is not None else 0)
        self._has_data = request.data is not None
        self._tap = request.tap
        self._sink = request.sink
        self._watcher = request.watch
        self._source = None if request.files is None else request.files.source
        self._left_files: bool | None = None
        self._answer = b""
        self._outputs: bytes | None = None
        self._limits = limits
        self.kernel_kills = kernel_kills
        self._result: asyncio.Future[Termination] = asyncio.get_running_loop().create_future()
        self._cause: ExecutionStatus | None = None
        self._kill: Callable[[], None] | None = None
        self._child: WaitingChild | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._judging: asyncio.Future[None] | None = None
        self._counting: asyncio.Future[None] | None = None
        self._alone = True
        self.metering: Metering | None = None
        self._kills_before = 0

    # For whoever waits

    async def wait(self) -> Termination:
        """See :class:`sandgate.sandbox.base.RunningExecution`."""
        return await asyncio.shield(self._result)

    def cancel(self) -> None:
        """See :class:`sandgate.sandbox.base.RunningExecution`."""
        self._end(ExecutionStatus.CANCELLED)

    @property
    def ended(self) -> bool:
        """Whether the answer is there."""
        return self._result.done()

    def forget(self) -> None:
        """Nobody will take it up any more: remove what was kept for that."""
        if self._spool is not None:
            self._spool.forget()

    def share(self) -> None:
        """Another one runs in the sandbox during this one: what happens to the sandbox may be the other one's doing."""
        self._alone = False

    # For the slot that runs it

    def start(
        self,
        child: WaitingChild,
        kills_before: int,
        kill: Callable[[], None],
        keep: Callable[[], None] | None = None,
    ) -> None:
        """Give the child its code. ``kill`` kills it and all that it has started; ``keep`` lets others take it up."""
        self._kills_before = kills_before
        self._take(child, kill, 0.0)
        self._keep = keep
        if self._is_kept_first and len(self._payload) <= _SENT_AT_ONCE_BYTES:
            # Before the code: whoever comes after this gateway finds the execution if it has begun.
            self._let_be_kept()
        self._send()

    def _let_be_kept(self) -> None:
        keep, self._keep = self._keep, None
        if keep is not None:
            keep()

    def resume(
        self, child: WaitingChild, age_s: float, kill: Callable[[], None], kills_before: int, *, has_ended: bool
    ) -> None:
        """Go on with a child that an earlier gateway was to give its code so many seconds ago."""
        self._kills_before = kills_before
        self._take(child, kill, age_s)
        if self._spool is not None:
            self._spool.recover()
        if self._is_kept_first and not has_ended and len(self._payload) <= _SENT_AT_ONCE_BYTES:
            self._send_again()
        self._payload = b""

    def _send_again(self) -> None:
        """Whoever was killed between the two may have had the child kept and not given it its code.

        A child that has its code reads no more, and looks at nothing that comes after it.
        """
        assert self._child is not None  # noqa: S101 - just taken
        channel = self._child.channel
        with suppress(OSError):
            unread = fcntl.ioctl(channel.fileno(), termios.TIOCOUTQ, bytes(4))
            if not int.from_bytes(unread, sys.byteorder):
                channel.send(self._payload, socket.MSG_DONTWAIT)

    def _take(self, child: WaitingChild, kill: Callable[[], None], age_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._child = child
        self._kill = kill
        self._stdout = self._stream("stdout", child.stdout)
        self._stderr = self._stream("stderr", child.stderr)
        if self._spool is not None:
            child.channel.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 0)
        if self._tap is not None:
            self._tap.open({"stdout": self._stdout, "stderr": self._stderr})
        self._begin_time(age_s)
        self._timers = [loop.call_later(_WATCH_AFTER_S if self._watcher is None else 0.0, self._watch)]
        if self._watcher is not None:
            self._watcher.begin()

    def _stream(self, name: str, descriptor: int) -> OutputStream:
        keep, drop = self._limits.output_bytes, self._limits.drained_output_bytes
        if self._spool is None:
            sink = self._sink if name == "stdout" else None
            if self._watcher is None:
                return OutputStream(descriptor, keep, drop, self._on_flood, sink)
            take = partial(self._watcher.put, name)
            return OutputStream(descriptor, keep, self._watcher.most_bytes, self._on_flood, sink, take)
        return self._spool.stream(name, descriptor, keep, drop, self._on_flood)

    def _send(self) -> None:
        """Write code until the socket is full, and go on when it is not."""
        if self._child is None:
            return
        loop = asyncio.get_running_loop()
        channel = self._child.channel
        try:
            # In each call, because the other side can take the flag off the socket.
            sent = channel.send(self._payload, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            # It died before it had read; its end is on the way.
            self._payload = b""
            loop.remove_writer(channel.fileno())
            return
        whole = sent == len(self._payload)
        self._payload = self._payload[sent:]
        if whole:
            self._let_be_kept()
            if self._source is not None:
                self._payload = self._source.take(self._send_more)
        if self._payload:
            loop.add_writer(channel.fileno(), self._send)
        else:
            loop.remove_writer(channel.fileno())

    def _send_more(self) -> None:
        """The source has something again."""
        if self._source is not None and self._child is not None and not self._payload:
            self._payload = self._source.take(self._send_more)
            if self._payload:
                self._send()

    def _watch(self) -> None:
        for stream in (self._stdout, self._stderr):
            stream.watch_soon() if self._watcher is None and self._sink is None else stream.watch()
        # What is left to be taken up is looked at once, at the end: the child's side of the socket has room for all.
        if self._has_data and self._child is not None and self._spool is None:
            # Outputs may be larger than the socket holds; the child waits until they are read.
            asyncio.get_running_loop().add_reader(self._child.channel.fileno(), self._read_answer)

    def _read_answer(self) -> None:
        """Take what the child has to say as it comes; one that says too much waits until its time is over."""
        if self._child is None:
            return
        if not self._receive(self._child.channel):
            asyncio.get_running_loop().remove_reader(self._child.channel.fileno())

    def _receive(self, channel: socket.socket) -> bool:
        """Read once; False when there will be no more, or may not."""
        room = wire.ANSWER_LIMIT - len(self._answer)
        try:
            part = channel.recv(room, self._receiving) if room else b""
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._answer += part
        return bool(part)

    def _over(self) -> None:
        self._end(ExecutionStatus.TIMED_OUT)

    def _has_ended(self) -> bool:
        return self.ended

    def _on_flood(self) -> None:
        self._end(ExecutionStatus.OUTPUT_LIMIT)

    def _end(self, cause: ExecutionStatus) -> None:
        """End it for a reason that is not its own; the first reason stands."""
        if self._cause is not None or self.ended:
            return
        self._cause = cause
        if self._kill is None:
            # It never got a child.
            self._resolve(None, None)
            return
        self._kill()
        self._timers.append(asyncio.get_running_loop().call_later(_CONFIRM_S, self._give_up))

    def _give_up(self) -> None:
        """The kill is on its way and the answer is due."""
        if not self.ended:
            self._resolve(None, self._close())

    def lose(self) -> None:
        """Its end, which is on the way, is not its own doing."""
        if self._cause is None and not self.ended:
            self._cause = ExecutionStatus.LOST

    def end_for_memory(self) -> None:
        """Kill it and everything that it started, because its sandbox uses too much memory."""
        self._end(ExecutionStatus.OUT_OF_MEMORY)

    def on_exited(self, exited: wire.Exited) -> None:
        """The child is dead, and all that it started."""
        if self.ended or self._child is None:
            return
        report = self._close()
        killed = os.WIFSIGNALED(exited.wait_status) and os.WTERMSIG(exited.wait_status) == signal.SIGKILL
        is_told_apart = self._alone or (self.kernel_kills.is_exact and held_much(exited, self._limits))
        broken = exited.wait_status != 0 and is_told_apart and self._had_time(exited)
        if (killed or broken) and self._cause is None:
            judge = self.kernel_kills.have_killed if killed else self.kernel_kills.have_hurt
            self._judging = asyncio.ensure_future(self._judge(exited, report, judge))
            return
        self._resolve(exited, report)

    def _had_time(self, exited: wire.Exited | None) -> bool:
        """Whether it can have used up the memory."""
        lasted_s = self.age_s if self._started > 0 else 0.0
        worked_s = lasted_s if exited is None else (exited.user_us + exited.system_us) / 1e6
        return lasted_s >= _LONG_S or min(lasted_s, worked_s) >= _SLOW_S

    def on_lost(self) -> None:
        """The slot, or the whole sandbox, died under it."""
        if self.ended:
            return
        report = self._close() if self._child is not None else None
        if self._cause is None:
            self._cause = ExecutionStatus.LOST
        self._resolve(None, report)

    async def _judge(
        self,
        exited: wire.Exited,
        report: "tuple[str, str, str] | None",
        was_out_of_memory: Callable[[int], Awaitable[bool]],
    ) -> None:
        if await was_out_of_memory(self._kills_before) and self._cause is None:
            self._cause = ExecutionStatus.OUT_OF_MEMORY
        if not self.ended:
            self._resolve(exited, report)

    def _close(self) -> "tuple[str, str, str] | None":
        """Read what is left and close everything; the report of the child, if there is one."""
        child, self._child = self._child, None
        self._timers_off()
        if child is None:
            return None
        loop = asyncio.get_running_loop()
        loop.remove_writer(child.channel.fileno())
        if self._has_data:
            loop.remove_reader(child.channel.fileno())
        report = self._read_end(child.channel)
        child.channel.close()
        self._stdout.finish()
        self._stderr.finish()
        return report

    def _read_end(self, channel: socket.socket) -> "tuple[str, str, str] | None":
        """Read what is left of the outputs, and the report after them."""
        if not self._has_data:
            return read_report(channel)
        before = -1
        while before != len(self._answer):
            before = len(self._answer)
            self._receive(channel)
        answer, self._left_files = wire.split_ending(self._answer)
        self._outputs, report = wire.split_outputs(answer)
        return wire.parse_report(report)

    def _timers_off(self) -> None:
        self._forget_limit()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _resolve(self, exited: wire.Exited | None, report: "tuple[str, str, str] | None") -> None:
        self._timers_off()
        # One that was cancelled before it began is held until its turn comes; what it was to be given need not be.
        self._payload = b""
        started = self._started > 0
        exit_code = exit_code_of(exited) if exited is not None and self._cause is None else None
        if self._cause is not None:
            status = self._cause
        else:
            status = ExecutionStatus.COMPLETED if exit_code == 0 else ExecutionStatus.FAILED
        termination = Termination(
            status=status,
            exit_code=exit_code,
            stdout=self._stdout.kept() if started else b"",
            stderr=self._stderr.kept() if started else b"",
            stdout_truncated=started and self._stdout.truncated,
            stderr_truncated=started and self._stderr.truncated,
            error=error_of(exited, exit_code, report) if status is ExecutionStatus.FAILED else None,
            duration_s=self.age_s if started else 0.0,
            usage=usage_of(exited, NOTHING if self.metering is None else self.metering.end()),
            outputs=self._outputs if status is ExecutionStatus.COMPLETED else None,
            left_files=started and self._has_data and self._left_files is not False,
            is_tidy=not (started and self._has_data) or self._left_files is not None,
        )
        if not self._result.done():
            self._result.set_result(termination)
        if self._judging is None and self._had_time(exited):
            # It may have borne a kill, which must not be laid to the next one.
            noted = self.kernel_kills.note_end(self._kills_before, could_be_meant=held_much(exited, self._limits))
            self._counting = asyncio.ensure_future(noted)
