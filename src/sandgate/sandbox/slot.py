"""The gateway's side of a slot: one waiting child, or one execution, at a time."""

import asyncio
import os
import socket
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from sandgate.core.errors import SandboxFailed
from sandgate.sandbox import descriptors
from sandgate.sandbox.execution import WaitingChild, ZygoteExecution
from sandgate_agent import wire

_CHILD_DESCRIPTORS = 3
_READS_AT_ONCE = 8
# Source: include/uapi/asm-generic/socket.h, since Linux 6.16
_SO_PASSRIGHTS = 83


class Running(Protocol):
    """What a slot tells of its child."""

    def share(self) -> None:
        """Another one runs in the sandbox during this one."""
        ...

    def end_for_memory(self) -> None:
        """Kill it, because its sandbox uses too much memory."""
        ...

    def on_exited(self, exited: wire.Exited) -> None:
        """The child is dead, and all that it started."""
        ...

    def on_lost(self) -> None:
        """The slot is gone."""
        ...


class Slot:
    """Owns the control socket of a forker. ``on_ready`` when a child waits, ``on_lost`` once, when it is gone.

    ``place`` is its number in the sandbox, which later gateways call it by, too.
    """

    def __init__(
        self,
        control: socket.socket,
        on_ready: Callable[["Slot"], None],
        on_lost: Callable[["Slot"], None],
        place: int = 0,
    ) -> None:
        control.setblocking(False)
        self.place = place
        self._control = control
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._child: WaitingChild | None = None
        self._running: Running | None = None
        self._number = 0
        self._held = False
        self._reset: asyncio.Future[None] | None = None
        self._left: dict[int, Running] = {}
        self.idle_since = 0.0
        asyncio.get_running_loop().add_reader(control.fileno(), self._on_readable)

    @property
    def is_ready(self) -> bool:
        """Whether a child waits for code."""
        return self._child is not None

    @property
    def running(self) -> Running | None:
        """The execution that has its child."""
        return self._running

    @property
    def control(self) -> int:
        """Its socket."""
        return self._control.fileno()

    def start(
        self,
        execution: ZygoteExecution,
        kills_before: int,
        *,
        hold: bool = False,
        keep: Callable[[WaitingChild], None] | None = None,
    ) -> None:
        """Hand the waiting child to an execution.

        With ``hold`` the next child comes only when it is asked for; ``keep`` is given the child when a
        later gateway may take it up.
        """
        child = self._child
        if child is None:
            raise RuntimeError("a slot was started without a waiting child")
        if hold and not self._held:
            # Before the code: so the forker reads it before it can see the end of the child.
            self._held = True
            self._tell_hold(child.number)
        self._child = None
        self._running = execution
        execution.start(
            child, kills_before, lambda: self.kill(child.number), None if keep is None else lambda: keep(child)
        )

    async def reset(self, limit_s: float) -> None:
        """Make a slot that an earlier gateway had forget what it ran. Raises ``SandboxFailed``."""
        self._number = 0
        self._held = False
        await self._ask_anew(wire.pack_numbered(wire.RESET, time.monotonic_ns()), limit_s)

    async def resume(self, left: Mapping[int, Running], limit_s: float) -> None:
        """Go on with what an earlier gateway ran under these numbers; those that have ended are told so.

        Whatever else runs is killed. Raises ``SandboxFailed``.
        """
        self._left = dict(left)
        newest = sorted(left)[-wire.MOST_RESUMED :]
        await self._ask_anew(wire.pack_resume(time.monotonic_ns(), newest), limit_s)

    async def _ask_anew(self, message: bytes, limit_s: float) -> None:
        """Skip what was said to an earlier gateway, up to the answer to this."""
        self._reset = asyncio.get_running_loop().create_future()
        self._awaited = message[: wire.NUMBERED_BYTES]
        try:
            self._control.send(message)
            async with asyncio.timeout(limit_s):
                await self._reset
        except (OSError, TimeoutError):
            raise SandboxFailed("The sandbox does not answer the gateway that adopts it.") from None
        finally:
            self._reset = None

    def kill(self, number: int) -> None:
        """Kill the child of this number and all that it has started, if it is the one that runs."""
        self._say(wire.KILL, number)

    def ask_for_next(self) -> None:
        """Let a slot that was told to hold have its next child."""
        if self._held:
            self._held = False
            self._tell_next()

    def _tell_hold(self, number: int) -> None:
        self._say(wire.HOLD, number)

    def _tell_next(self) -> None:
        self._say(wire.NEXT, self._number)

    def _say(self, kind: bytes, number: int) -> None:
        try:
            self._control.send(wire.pack_numbered(kind, number))
        except OSError:
            # It is gone already, which is about to be noticed.
            return

    def _on_readable(self) -> None:
        # A few at a time: one that talks without end must not keep the gateway from others.
        for _read in range(_READS_AT_ONCE):
            if self._control.fileno() < 0:
                return
            try:
                message, received = descriptors.receive(self._control, _CHILD_DESCRIPTORS + 1)
            except BlockingIOError:
                return
            except OSError:
                message, received = b"", []
            try:
                self._on_message(message, received)
            except wire.WireError:
                for descriptor in received:
                    os.close(descriptor)
                self._lose()
                return

    def _on_message(self, message: bytes, received: list[int]) -> None:
        if not message:
            raise wire.WireError("the end of the channel")
        if self._is_resetting:
            self._on_resetting(message, received)
            return
        if message[:1] == wire.EXITED:
            exited = wire.parse_exited(message)
            if exited.number != self._number or received or self._running is None:
                raise wire.WireError("the end of a child that does not run")
            execution, self._running = self._running, None
            execution.on_exited(exited)
            return
        kind, number = wire.parse_numbered(message)
        if kind != wire.CHILD or number != self._number + 1 or self._child or self._running:
            raise wire.WireError("expected the next child")
        self._child = self._take_child(number, received)
        self._number = number
        self._on_ready(self)

    def _take_child(self, number: int, received: list[int]) -> WaitingChild:
        """The child that has come. Raises ``WireError``, and then ``received`` is the caller's still."""
        return open_child(number, received)

    @property
    def _is_resetting(self) -> bool:
        return self._reset is not None and not self._reset.done()

    def _on_resetting(self, message: bytes, received: list[int]) -> None:
        """Skip whatever was said to the earlier gateway."""
        for descriptor in received:
            os.close(descriptor)
        # They are nobody's now, whatever is wrong with the message.
        received.clear()
        if message[: wire.NUMBERED_BYTES] != self._awaited or self._reset is None:
            return
        if message[:1] == wire.RESUME:
            self._on_resumed(*wire.parse_resumed(message))
        self._reset.set_result(None)

    def _on_resumed(self, number: int, ends: Sequence[wire.Exited]) -> None:
        """Whoever is neither among the ends nor the one that runs has been forgotten inside."""
        self._number = number
        self._held = True
        for exited in ends:
            running = self._left.pop(exited.number, None)
            if running is not None:
                running.on_exited(exited)
        self._running = self._left.pop(number, None)
        for lost in self._left.values():
            lost.on_lost()

    def _lose(self) -> None:
        if self.close():
            self._on_lost(self)

    def close(self) -> bool:
        """Let go of the slot, which ends it with all that runs in it; False when it was closed before."""
        if self._control.fileno() < 0:
            return False
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        if self._child is not None:
            self._child.close()
            self._child = None
        if self._reset is not None and not self._reset.done():
            self._reset.set_exception(SandboxFailed("The sandbox ended while it was adopted."))
        execution, self._running = self._running, None
        if execution is not None:
            execution.on_lost()
        return True


def open_child(number: int, received: list[int]) -> WaitingChild:
    """The child behind these descriptors, which are taken over. Raises ``WireError``, and then none is."""
    if len(received) != _CHILD_DESCRIPTORS:
        raise wire.WireError(f"expected {_CHILD_DESCRIPTORS} descriptors of a child, got {len(received)}")
    channel, *pipes = received
    if not _is_stream(channel) or not all(stat.S_ISFIFO(os.fstat(pipe).st_mode) for pipe in pipes):
        raise wire.WireError("a child came without a socket and two pipes")
    try:
        for pipe in pipes:
            _open_anew(pipe)
    except OSError as error:
        raise wire.WireError(f"the output of a child cannot be read: {error}") from error
    return WaitingChild(number, without_rights(channel), *pipes)


def without_rights(channel: int) -> socket.socket:
    """A socket to which nobody can send descriptors.

    They would be closed by this process, and what the last close of a file costs is up to who made it. Older kernels
    have no such switch; there the filter of system calls keeps a close from waiting.
    """
    made = socket.socket(fileno=channel)
    with suppress(OSError):
        made.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
    return made


def _open_anew(pipe: int) -> None:
    """Give a pipe flags of its own: whoever sent it may have kept a copy, and could make it block otherwise."""
    own = os.open(f"/proc/self/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.dup2(own, pipe, inheritable=False)
    os.close(own)


def _is_stream(descriptor: int) -> bool:
    """Whether it is a socket of the kind that a child reads its code from."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return False
    looked_at = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor)
    kind = [looked_at.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_DOMAIN, socket.SO_TYPE)]
    looked_at.detach()
    return kind == [socket.AF_UNIX, socket.SOCK_STREAM]
