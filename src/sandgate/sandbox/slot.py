"""The gateway's side of a slot: one waiting child, or one execution, at a time."""

import asyncio
import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, runtime_checkable

from sandgate.core.errors import SandboxFailed
from sandgate.sandbox import descriptors
from sandgate.sandbox.child_ends import CHILD_DESCRIPTORS, open_child
from sandgate.sandbox.execution import WaitingChild
from sandgate.sandbox.session import SandboxSession
from sandgate_agent import wire

_READS_AT_ONCE = 8
# When descriptors, or memory, may be had again; and for how long a lack of them excuses that there is no child.
_TRY_AGAIN_S, _LACKED_S = 0.05, 10.0
# Of those that wait, one after the other: the kernel ends some where memory runs out, a forker that lies any number.
_MOST_WASTED = 64


class Running(Protocol):
    """What a slot tells of its child."""

    @property
    def is_command(self) -> bool:
        """Whether it stays beside what is executed."""
        ...

    def stand_still(self) -> None:
        """Its time does not go on."""
        ...

    def go_on(self) -> None:
        """Its time goes on."""
        ...

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


@runtime_checkable
class Interruptible(Protocol):
    """What is told that an interrupt was passed on."""

    def on_interrupted(self) -> None:
        """It was."""
        ...


class Startable(Protocol):
    """What can be handed a child: an execution, a command, or a session."""

    @property
    def is_command(self) -> bool:
        """See ``Running``."""
        ...

    @property
    def is_last(self) -> bool:
        """Whether none is expected to follow in the sandbox."""
        ...

    @property
    def tag(self) -> str | None:
        """What a later gateway may take it up by."""
        ...

    @property
    def ended(self) -> bool:
        """Whether it needs no child any more."""
        ...

    def start(
        self, child: WaitingChild, kills_before: int, kill: Callable[[], None], keep: Callable[[], None] | None = None
    ) -> None:
        """The child is its own from now on. ``kill`` kills it; ``keep`` lets others take it up."""
        ...

    def share(self) -> None:
        """See ``Running``."""
        ...

    def stand_still(self) -> None:
        """See ``Running``."""
        ...

    def go_on(self) -> None:
        """See ``Running``."""
        ...

    def end_for_memory(self) -> None:
        """See ``Running``."""
        ...

    def on_exited(self, exited: wire.Exited) -> None:
        """See ``Running``."""
        ...

    def on_lost(self) -> None:
        """See ``Running``."""
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
        # Those that it has not said to be done.
        self._interrupts = 0
        self._unreachable = False
        self._lacked_at = -math.inf
        self._wasted = 0
        self._reset: asyncio.Future[None] | None = None
        self._left: dict[int, Running] = {}
        self.idle_since = 0.0
        asyncio.get_running_loop().add_reader(control.fileno(), self._on_readable)

    @property
    def is_ready(self) -> bool:
        """Whether a child waits for code."""
        return self._child is not None

    @property
    def lacks_room(self) -> bool:
        """Whether it has no child because this process had no descriptors for one, a moment ago."""
        return time.monotonic() - self._lacked_at < _LACKED_S

    @property
    def running(self) -> Running | None:
        """The execution that has its child."""
        return self._running

    @property
    def runs_command(self) -> bool:
        """Whether what has its child stays beside what is executed."""
        return self._running is not None and self._running.is_command

    @property
    def control(self) -> int:
        """Its socket."""
        return self._control.fileno()

    def start(
        self,
        execution: Startable,
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
        self._wasted = 0
        self._running = execution
        if isinstance(execution, SandboxSession):
            execution.interrupt_by(lambda: self.interrupt(child.number))
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

    def interrupt(self, number: int) -> None:
        """Interrupt the child of this number and its group, if it is the one that runs; that it was done is told."""
        self._interrupts += 1
        self._say(wire.INTERRUPT, number)

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
        # It may be gone already, which is about to be noticed.
        with suppress(OSError):
            self._control.send(wire.pack_numbered(kind, number))

    def _on_readable(self) -> None:
        # A few at a time: one that talks without end must not keep the gateway from others.
        for _read in range(_READS_AT_ONCE):
            if self._control.fileno() < 0:
                return
            try:
                message, received, lacked = descriptors.receive_or_lack(self._control, CHILD_DESCRIPTORS + 1)
            except BlockingIOError:
                return
            except OSError:
                message, received, lacked = b"", [], False
            try:
                if lacked and not self._is_resetting:
                    self._be_unreachable(self._parse_next(message))
                else:
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
            if exited.number == self._number and self._unreachable and not received:
                self._unreachable = False
                asyncio.get_running_loop().call_later(_TRY_AGAIN_S, self.ask_for_next)
                return
            if exited.number == self._number and self._child is not None and not received:
                self._waste_child()
                return
            if exited.number != self._number or received or self._running is None:
                raise wire.WireError("the end of a child that does not run")
            execution, self._running = self._running, None
            execution.on_exited(exited)
            return
        kind, number = wire.parse_numbered(message)
        if kind == wire.INTERRUPT and not received and self._interrupts:
            self._interrupts -= 1
            # It may have ended meanwhile.
            if isinstance(self._running, Interruptible) and number == self._number:
                self._running.on_interrupted()
            return
        number = self._parse_next(message)
        try:
            self._child = self._take_child(number, received)
        except OSError:
            for descriptor in received:
                os.close(descriptor)
            self._be_unreachable(number)
            return
        self._number = number
        self._on_ready(self)

    def _waste_child(self) -> None:
        """The one that waits has been ended: when memory runs out, it can be the first. The next has to wait."""
        self._wasted += 1
        if self._wasted > _MOST_WASTED:
            raise wire.WireError("no child lives until it is needed")
        assert self._child is not None  # noqa: S101 - the caller has looked
        self._child.close()
        self._child = None
        if not self._held:
            self._held = True
            self._tell_hold(self._number)
            asyncio.get_running_loop().call_later(_TRY_AGAIN_S, self.ask_for_next)

    def _parse_next(self, message: bytes) -> int:
        """The number of the next child. Raises ``WireError``."""
        kind, number = wire.parse_numbered(message)
        if kind != wire.CHILD or number != self._number + 1 or self._child or self._running or self._unreachable:
            raise wire.WireError("expected the next child")
        return number

    def _be_unreachable(self, number: int) -> None:
        """A child has come whose ends this process had no room for: it ends by itself, and the next one has to wait."""
        self._number = number
        self._unreachable = True
        self._lacked_at = time.monotonic()
        self._held = True
        self._say(wire.HOLD, self._number)

    def _take_child(self, number: int, received: list[int]) -> WaitingChild:
        """The child that has come. Raises ``WireError``; ``OSError`` without room: ``received`` stays the caller's."""
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
