"""The gateway's side of a sandbox: hands executions to slots, and asks for slots when executions wait.

Everything that the sandbox sends is hostile: whatever does not fit the protocol ends the slot it came from, and no
more; the sandbox ends with its first slot.
"""

import asyncio
import itertools
import os
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from types import MappingProxyType

from sandgate.core.errors import LauncherUnavailable, SandboxFailed, TooManyExecutions
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import Limits
from sandgate.sandbox.base import SandboxUsage
from sandgate.sandbox.execution import WaitingChild, ZygoteExecution
from sandgate.sandbox.given_slot import GivenSlot
from sandgate.sandbox.kept_output import Keeping, Spool
from sandgate.sandbox.launcher.protocol import OUT_OF_MEMORY
from sandgate.sandbox.left_behind import LeftBehind, LeftSlot
from sandgate.sandbox.slot import Slot
from sandgate_agent import wire

QUEUE_LIMIT = 256
_IDLE_SLOT_S = 10.0
_RETRY_S = 0.02
_ADOPT_LIMIT_S = 5.0
# How long the next child waits while the runtime has more urgent things to do than to make it.
_HOLD_S = 0.02
_MOST_HOLDS = 10
# With nothing running, a sandbox that offers no child for so long will not come back.
_STALL_LIMIT_S = 30.0


class SandboxLink:
    """See :class:`sandgate.sandbox.base.Sandbox`.

    ``add_slot()`` makes another slot and answers its control socket, ``usage()`` answers what this sandbox uses,
    ``extend(seconds)`` moves its end, ``keep(tag, child, slot, kills)`` has a child's ends kept for a later gateway,
    ``let_go(tag)`` no longer, ``is_busy()`` tells whether the machine has more urgent things to do than to make a child
    that nobody has asked for yet.
    """

    def __init__(
        self,
        environment_id: EnvironmentId,
        control: socket.socket,
        limits: Limits,
        *,
        add_slot: Callable[[], Awaitable[socket.socket]],
        usage: Callable[[], Awaitable[SandboxUsage]],
        extend: Callable[[float], Awaitable[None]],
        keep: Callable[[str, WaitingChild, Slot, int], None] = lambda _tag, _child, _slot, _kills: None,
        let_go: Callable[[str], None] = lambda _tag: None,
        keeping: Keeping | None = None,
        is_busy: Callable[[], bool] = lambda: False,
        slot_type: type[Slot] = Slot,
    ) -> None:
        self._environment_id = environment_id
        self._limits = limits
        self._add_slot = add_slot
        self._usage = usage
        self._extend = extend
        self._keep = keep
        self._let_go = let_go
        self._keeping = keeping
        # What a later gateway may take up, and what an earlier one has left, with its slot; both by tag.
        self._tagged: dict[str, ZygoteExecution] = {}
        self._left: dict[str, tuple[LeftBehind, Slot]] = {}
        self._is_busy = is_busy
        self._holding: asyncio.TimerHandle | None = None
        self._slot_type = slot_type
        self._first = slot_type(control, self._on_ready, self._on_slot_lost)
        self._slots = [self._first]
        self._places = itertools.count(1)
        self._waiting: deque[ZygoteExecution] = deque()
        self._adding: set[asyncio.Task[None]] = set()
        self._kills = 0
        self._failure: str | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._progressed_at = time.monotonic()

    @property
    def environment_id(self) -> EnvironmentId:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        return self._environment_id

    @property
    def failure(self) -> str | None:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        return self._failure

    def take_up(self, ends: list[int]) -> None:
        """A child was asked for before this gateway knew of the sandbox: these are its ends, if there are any."""
        try:
            if ends and isinstance(self._first, GivenSlot):
                self._first.take_up(ends)
        except wire.WireError as error:
            for end in ends:
                os.close(end)
            self.fail(f"its first child cannot be reached: {error}")

    async def adopt(self, left: Mapping[int, LeftSlot] = MappingProxyType({})) -> None:
        """Make the sandbox forget what it ran for an earlier gateway, but what was left to be taken up.

        Raises ``SandboxFailed``.
        """
        self._places = itertools.count(max(left, default=0) + 1)
        others = dict(left)
        first = others.pop(0, None)
        try:
            if first is None:
                await self._first.reset(_ADOPT_LIMIT_S)
            else:
                await self._go_on_in(self._first, first)
        except SandboxFailed:
            for found in others.values():
                found.close()
            raise
        for found in others.values():
            with suppress(SandboxFailed):
                await self._go_on_in(self._make_slot(found), found)
        await self._was_out_of_memory(0)

    def _make_slot(self, left: LeftSlot) -> Slot:
        """Right before it is told to go on: what was said to the earlier gateway is skipped only after that."""
        assert left.control is not None  # noqa: S101 - only the first slot comes without one
        slot = self._slot_type(left.control, self._on_ready, self._on_slot_lost, left.place)
        self._slots.append(slot)
        return slot

    async def _go_on_in(self, slot: Slot, left: LeftSlot) -> None:
        """Raises ``SandboxFailed``; then what was left in it is lost."""
        self._left |= {execution.tag: (execution, slot) for execution in left.executions}
        try:
            await slot.resume({execution.number: execution for execution in left.executions}, _ADOPT_LIMIT_S)
        except SandboxFailed:
            slot.close()
            if slot in self._slots[1:]:
                self._slots.remove(slot)
            for execution in left.executions:
                execution.on_lost()
            raise

    @property
    def left(self) -> Collection[str]:
        """The tags of what an earlier gateway has left."""
        return self._left.keys()

    def resume(self, request: ExecutionRequest, limits: Limits) -> ZygoteExecution | None:
        """Go on with what an earlier gateway began under the request's tag; None when there is nothing."""
        left, slot = self._left.pop(request.tag or "", (None, self._first))
        if left is None:
            return None
        self._limits = limits
        execution = self._make_execution(request)
        if len(self._slots) > 1 or self._left:
            execution.share()
        left.take_up(execution, lambda: slot.kill(left.number))
        return execution

    def drop(self, tag: str) -> None:
        """End what an earlier gateway left under this tag, for which nobody asks."""
        left, slot = self._left.pop(tag, (None, self._first))
        if left is not None:
            slot.kill(left.number)
            left.close()
            self.let_go(tag)
            if self._keeping is not None:
                self._keeping.forget(self._environment_id, tag)

    def lose(self, tag: str) -> None:
        """The launcher has killed the execution with this tag."""
        if tag in self._tagged:
            self._tagged[tag].lose()

    def let_go(self, tag: str) -> None:
        """What an execution came to is known: no later gateway need take it up."""
        self._let_go(tag)
        execution = self._tagged.pop(tag, None)
        if execution is not None:
            execution.forget()

    def execute(self, request: ExecutionRequest) -> ZygoteExecution:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        if self._failure is not None:
            raise SandboxFailed(f"The sandbox has ended: {self._failure}", {"reason": self._failure})
        if len(self._waiting) >= QUEUE_LIMIT:
            # Those that were cancelled meanwhile wait for nothing.
            self._waiting = deque(each for each in self._waiting if not each.ended)
        if len(self._waiting) >= QUEUE_LIMIT:
            raise TooManyExecutions(
                f"{QUEUE_LIMIT} executions wait in this environment already; try again when some have ended.",
                {"limit": QUEUE_LIMIT},
            )
        execution = self._make_execution(request)
        ready = next((slot for slot in self._slots if slot.is_ready), None)
        if ready is not None and not self._waiting:
            self._start(ready, execution)
        else:
            self._waiting.append(execution)
            self._ask_for_next()
            self._ask_for_slots()
            self._watch_for_stall()
        return execution

    def _make_execution(self, request: ExecutionRequest) -> ZygoteExecution:
        tag, spool = request.tag, None
        if tag is not None and self._keeping is not None:
            spool = Spool(self._keeping, self._environment_id, tag)
        execution = ZygoteExecution(request, self._limits, self._was_out_of_memory, spool)
        if tag is not None:
            self._tagged[tag] = execution
        return execution

    async def extend(self, lifetime_s: float) -> None:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        await self._extend(lifetime_s)

    async def usage(self) -> SandboxUsage:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        return await self._usage()

    async def _was_out_of_memory(self, kills_before: int) -> bool:
        try:
            used = await self._usage()
        except (LauncherUnavailable, SandboxFailed):
            # Nothing is known without the launcher.
            return self._kills > kills_before
        self._kills = max(self._kills, used.out_of_memory_kills or 0)
        return self._kills > kills_before

    # Slots

    def _ask_for_slots(self) -> None:
        """Ask for as many slots as executions wait, beyond those that are getting ready, within the limit."""
        coming = len(self._adding) + sum(1 for slot in self._slots if slot.running is None and not slot.is_ready)
        room = self._limits.concurrent_executions - len(self._slots) - len(self._adding)
        for _slot in range(min(room, len(self._waiting) - coming)):
            task = asyncio.ensure_future(self._add())
            self._adding.add(task)
            task.add_done_callback(self._adding.discard)

    async def _add(self) -> None:
        """Add a slot, or try again as long as somebody waits: an execution may hold all processes now."""
        while self._failure is None and self._waiting:
            try:
                control = await self._add_slot()
            except (SandboxFailed, LauncherUnavailable):
                await asyncio.sleep(_RETRY_S)
                continue
            if self._failure is not None:
                control.close()
                return
            self._slots.append(self._slot_type(control, self._on_ready, self._on_slot_lost, next(self._places)))
            return

    def _start(self, slot: Slot, execution: ZygoteExecution) -> None:
        others = [other.running for other in self._slots if other.running is not None]
        for each in [*others, execution] if others else ():
            each.share()
        busy = self._is_busy()
        tag = execution.tag
        keep = None if tag is None else lambda child: self._keep(tag, child, slot, self._kills)
        slot.start(execution, self._kills, hold=busy or execution.is_last, keep=keep)
        if busy and not execution.is_last and self._holding is None:
            self._hold(_MOST_HOLDS)

    def _hold(self, times: int) -> None:
        self._holding = asyncio.get_running_loop().call_later(_HOLD_S, self._end_hold, times - 1)

    def _end_hold(self, times: int) -> None:
        """The next children may come, unless there is still something more urgent."""
        self._holding = None
        if times and self._is_busy():
            self._hold(times)
        else:
            self._ask_for_next()

    def _ask_for_next(self) -> None:
        for slot in self._slots:
            slot.ask_for_next()

    def _watch_for_stall(self) -> None:
        if self._watch is None and self._failure is None:
            self._progressed_at = time.monotonic()
            self._watch = asyncio.get_running_loop().call_later(_STALL_LIMIT_S, self._check_for_stall)

    def _check_for_stall(self) -> None:
        """Nobody may wait for ever on a sandbox that is alive and does nothing."""
        self._watch = None
        busy = any(slot.running is not None for slot in self._slots)
        if self._waiting and not busy and time.monotonic() - self._progressed_at >= _STALL_LIMIT_S:
            self.fail(f"it started no process within {_STALL_LIMIT_S:.0f} seconds")
        elif self._waiting:
            self._watch_for_stall()

    def _on_ready(self, slot: Slot) -> None:
        self._progressed_at = time.monotonic()
        while self._waiting:
            execution = self._waiting.popleft()
            if not execution.ended:
                self._start(slot, execution)
                return
        slot.idle_since = time.monotonic()
        if len(self._slots) > 1 and self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_IDLE_SLOT_S, self._close_idle)

    def _close_idle(self) -> None:
        """Let go of slots that nobody has needed for a while; the first one stays."""
        self._sweep = None
        before = time.monotonic() - _IDLE_SLOT_S * 0.9
        for slot in self._slots[1:]:
            if slot.is_ready and slot.idle_since < before:
                self._slots.remove(slot)
                slot.close()
        if len(self._slots) > 1 and self._failure is None:
            self._sweep = asyncio.get_running_loop().call_later(_IDLE_SLOT_S, self._close_idle)

    def _on_slot_lost(self, slot: Slot) -> None:
        if slot is self._first:
            self.fail("its process 1 ended")
        elif slot in self._slots:
            self._slots.remove(slot)
            self._ask_for_slots()

    def end_for_memory(self) -> None:
        """The sandbox uses more than it may: end what runs in it, because nobody can tell which of them it is."""
        for slot in self._slots:
            if slot.running is not None:
                slot.running.end_for_memory()

    def fail(self, reason: str) -> None:
        """It has ended: everything that ran or waited in it is lost. The first reason stands."""
        if self._failure is not None:
            return
        self._failure = reason
        if reason == OUT_OF_MEMORY:
            self.end_for_memory()
        for timer in (self._sweep, self._watch, self._holding):
            if timer is not None:
                timer.cancel()
        for slot in self._slots:
            slot.close()
        while self._waiting:
            self._waiting.popleft().on_lost()

    def forget(self) -> Collection[str]:
        """The sandbox is ended for good: nobody will take up what it ran; answers under which tags it did."""
        tags = [*self._tagged, *self._left]
        for execution in self._tagged.values():
            execution.forget()
        self._tagged.clear()
        self.leave()
        return tags

    def leave(self) -> None:
        """What an earlier gateway left is for a later one."""
        for left, _slot in self._left.values():
            left.close()
        self._left.clear()
