"""The gateway's side of a sandbox: hands executions to slots, and asks for slots when executions wait.

Everything that the sandbox sends is hostile: whatever does not fit the protocol ends the slot it came from, and no
more; the sandbox ends with its first slot.
"""

import asyncio
import itertools
import os
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from types import MappingProxyType

from sandgate.core.errors import LauncherUnavailable, SandboxFailed
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import Limits
from sandgate.core.session import SessionRequest, SessionStatus
from sandgate.sandbox.adoption import Adoption
from sandgate.sandbox.base import SandboxUsage
from sandgate.sandbox.execution import ZygoteExecution
from sandgate.sandbox.given_slot import GivenSlot
from sandgate.sandbox.inner_network import InnerNetwork
from sandgate.sandbox.kept_output import Keeping
from sandgate.sandbox.kernel_kills import KernelKills
from sandgate.sandbox.launcher.protocol import OUT_OF_MEMORY
from sandgate.sandbox.left_behind import Keep, LeftBehind, keep_nothing
from sandgate.sandbox.line import Line
from sandgate.sandbox.making import ExecutionMaker
from sandgate.sandbox.meter import Meter
from sandgate.sandbox.session import SandboxSession, as_it_is
from sandgate.sandbox.slot import Running, Slot, Startable
from sandgate.sandbox.stall import StallWatch
from sandgate.sandbox.standstill import Standstill
from sandgate_agent import wire

_IDLE_SLOT_S = 10.0
_RETRY_S = 0.02
# A session that has just begun has the machine for itself so long.
_SPARE_SLOT_S = 0.05
_ADOPT_LIMIT_S = 5.0
# How long the next child waits while the runtime has more urgent things to do than to make it.
_HOLD_S = 0.02
_MOST_HOLDS = 10


class SandboxLink(Adoption):
    """See :class:`sandgate.sandbox.base.Sandbox`.

    ``add_slot()`` makes another slot and answers its control socket and what counts its time, ``counters`` count for
    the whole sandbox (see :class:`Meter`; all are this object's from here on), ``usage(looks_inside)`` answers what it
    uses, ``extend(seconds)`` moves its end, ``keep`` has a child's ends kept for a later gateway, ``let_go(tag)`` no
    longer, ``is_busy()`` tells whether the machine has more urgent things to do than to make a child that nobody has
    asked for yet.
    """

    def __init__(
        self,
        environment_id: EnvironmentId,
        control: socket.socket,
        limits: Limits,
        *,
        add_slot: Callable[[], Awaitable[tuple[socket.socket, Mapping[str, int]]]],
        usage: Callable[[bool], Awaitable[SandboxUsage]],
        extend: Callable[[float], Awaitable[None]],
        standstill: Standstill,
        keep: Keep = keep_nothing,
        let_go: Callable[[str], None] = lambda _tag: None,
        keeping: Keeping | None = None,
        is_busy: Callable[[], bool] = lambda: False,
        slot_type: type[Slot] = Slot,
        counters: Mapping[str, int] = MappingProxyType({}),
        network: InnerNetwork | None = None,
    ) -> None:
        self._environment_id = environment_id
        self._limits = limits
        self._network = network
        self._add_slot = add_slot
        self._usage = usage
        self._extend = extend
        self._keep = keep
        self._let_go = let_go
        self._keeping = keeping
        self._kernel_kills = KernelKills(self._ask_for_kills, counters.get("kills"))
        self._maker = ExecutionMaker(environment_id, self._kernel_kills, keeping, network)
        # What a later gateway may take up, and what an earlier one has left, with its slot; both by tag.
        self._tagged: dict[str, ZygoteExecution] = {}
        self._left: dict[str, tuple[LeftBehind, Slot]] = {}
        # Of sessions.
        self._noted: set[str] = set()
        self._is_busy = is_busy
        self._holding: asyncio.TimerHandle | None = None
        self._slot_type = slot_type
        self._first = slot_type(control, self._on_ready, self._on_slot_lost)
        self._slots = [self._first]
        self.standstill = standstill.of(self._running, self._make_execution)
        self._places = itertools.count(1)
        self._waiting = Line()
        self._adding: set[asyncio.Task[None]] = set()
        self._meter = Meter(counters)
        self._failure: str | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._stall = StallWatch(
            lambda: bool(self._waiting),
            self._is_at_work,
            self._on_stall,
        )

    @property
    def environment_id(self) -> EnvironmentId:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        return self._environment_id

    @property
    def network(self) -> InnerNetwork:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        assert self._network is not None  # noqa: S101 - only some tests do without one
        return self._network

    @property
    def failure(self) -> str | None:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        return self._failure

    @property
    def is_idle(self) -> bool:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        return not self._waiting and all(map(_is_resting, self._running()))

    def _is_at_work(self) -> bool:
        """Whether there is a reason for nothing to go on."""
        busy = any(slot.running is not None or slot.lacks_room for slot in self._slots_of_code())
        return self.standstill.is_on or busy

    def _running(self) -> list[Running]:
        return [slot.running for slot in self._slots if slot.running is not None]

    def take_up(self, ends: list[int]) -> None:
        """A child was asked for before this gateway knew of the sandbox: these are its ends, if there are any."""
        try:
            if ends and isinstance(self._first, GivenSlot):
                self._first.take_up(ends)
        except (wire.WireError, OSError) as error:
            for end in ends:
                os.close(end)
            self.fail(f"its first child cannot be reached: {error}")

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
            if execution.is_command and self._keeping is not None:
                self._keeping.forget(self._environment_id, tag)

    def execute(self, request: ExecutionRequest) -> ZygoteExecution:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        self._check_alive()
        self._waiting.check_room()
        execution = self._make_execution(request)
        self._begin(execution)
        return execution

    def open_session(self, request: SessionRequest) -> SandboxSession:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        self._check_alive()
        session = self._make_session(request)
        if request.tag is not None and self._keeping is not None:
            self._keeping.note(self._environment_id, request.tag, request.note)
        self._begin(session)
        return session

    def _make_session(self, request: SessionRequest) -> SandboxSession:
        surround = as_it_is if self._network is None else self._network.surround
        session = SandboxSession(request, self._limits, self._kernel_kills, surround)
        tag = request.tag
        if tag is not None:
            self._noted.add(tag)
            session.on_over(lambda: self._forget_session(tag))
        return session

    def _forget_session(self, tag: str) -> None:
        """It has ended; when it did with this gateway, what was kept of it is for the next one."""
        if self._failure is None:
            self._let_go(tag)
            self._forget_note(tag)

    def _forget_note(self, tag: str) -> None:
        self._noted.discard(tag)
        if self._keeping is not None:
            self._keeping.forget(self._environment_id, tag)

    def _check_alive(self) -> None:
        """Raises ``SandboxFailed``."""
        if self._failure is not None:
            raise SandboxFailed(f"The sandbox has ended: {self._failure}", {"reason": self._failure})

    def _begin(self, execution: Startable) -> None:
        """Now, or when there is a child for it."""
        ready = next((slot for slot in self._slots if slot.is_ready), None)
        if ready is not None and (execution.is_command or not (self._waiting or self._is_full)):
            self._start(ready, execution)
        else:
            self._waiting.add(execution)
            self._ask_for_next()
            self._ask_for_slots()
            self._stall.begin()

    def _make_execution(self, request: ExecutionRequest) -> ZygoteExecution:
        execution = self._maker.make(request, self._limits)
        if request.tag is not None:
            self._tagged[request.tag] = execution
        return execution

    async def extend(self, lifetime_s: float) -> None:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        await self._extend(lifetime_s)

    async def usage(self) -> SandboxUsage:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        return await self._usage(True)

    async def _ask_for_kills(self) -> int | None:
        try:
            return (await self._usage(False)).out_of_memory_kills
        except (LauncherUnavailable, SandboxFailed):
            return None

    # Slots

    def _ask_for_slots(self) -> None:
        """Ask for as many slots as executions wait, beyond those that are getting ready, within the limit."""
        coming = len(self._adding) + sum(1 for slot in self._slots if slot.running is None and not slot.is_ready)
        # Commands and sessions have slots of their own: what is executed is not to wait for them.
        commands = self._waiting.count_commands() + len(self._slots) - len(self._slots_of_code())
        room = self._limits.concurrent_executions + commands - len(self._slots) - len(self._adding)
        for _slot in range(min(room, len(self._waiting) - coming)):
            self._add_one()

    def _slots_of_code(self) -> list[Slot]:
        """Those in which nothing stays."""
        return [slot for slot in self._slots if not slot.runs_command]

    @property
    def _is_full(self) -> bool:
        """Whether as much code runs as may, though there are slots: those are for what stays."""
        limit = self._limits.concurrent_executions
        return len(self._slots) > limit and sum(slot.running is not None for slot in self._slots_of_code()) >= limit

    def _add_one(self) -> None:
        task = asyncio.ensure_future(self._add())
        self._adding.add(task)
        task.add_done_callback(self._adding.discard)

    async def _add(self) -> None:
        """Add a slot, or try again as long as somebody waits: an execution may hold all processes now."""
        while self._failure is None and (self._waiting or not self._slots_of_code()):
            await self.standstill.wait_for_end()
            try:
                control, counters = await self._add_slot()
            except (SandboxFailed, LauncherUnavailable):
                if not self._waiting:
                    # Whoever comes will ask again.
                    return
                await asyncio.sleep(_RETRY_S)
                continue
            place = next(self._places)
            if "time" in counters:
                self._meter.add(place, counters["time"])
            if self._failure is not None:
                control.close()
                self._meter.close()
                return
            self._slots.append(self._slot_type(control, self._on_ready, self._on_slot_lost, place))
            return

    def _start(self, slot: Slot, execution: Startable) -> None:
        others = [other.running for other in self._slots if other.running is not None]
        for each in [*others, execution] if others else ():
            each.share()
        busy = self._is_busy()
        tag = execution.tag
        is_command = execution.is_command
        kills = self._kernel_kills.look()
        keep = None if tag is None else lambda child: self._keep(tag, child, slot, kills, is_command=is_command)
        if isinstance(execution, SandboxSession):
            execution.measured_by(partial(self._meter.begin, slot.place))
            asyncio.get_running_loop().call_later(_SPARE_SLOT_S, self._provide_slot)
        elif isinstance(execution, ZygoteExecution):
            execution.metering = self._meter.begin(slot.place)
        slot.start(execution, kills, hold=busy or execution.is_last, keep=keep)
        self.standstill.admit(execution)
        if busy and not execution.is_last and self._holding is None:
            self._hold(_MOST_HOLDS)

    def _provide_slot(self) -> None:
        """A session keeps its slot, and the next execution is not to wait for another one to be made."""
        if not self._slots_of_code() and not self._adding and self._failure is None:
            self._add_one()

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

    def _on_stall(self) -> None:
        """What stays in it may hold all processes, and is not to end because others cannot begin."""
        if len(self._slots_of_code()) < len(self._slots):
            self._waiting.lose()
        else:
            self.fail(f"it started no process within {self._stall.limit_s:.0f} seconds")

    def _on_ready(self, slot: Slot) -> None:
        self._stall.note_progress()
        following = self._waiting.take(only_commands=self._is_full)
        if following is not None:
            self._start(slot, following)
            return
        slot.idle_since = time.monotonic()
        if len(self._slots) > 1 and self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_IDLE_SLOT_S, self._close_idle)

    def _close_idle(self) -> None:
        """Let go of slots that nobody has needed for a while; the first one stays."""
        self._sweep = None
        before = time.monotonic() - _IDLE_SLOT_S * 0.9
        for slot in self._slots[1:]:
            if slot.is_ready and slot.idle_since < before and len(self._slots_of_code()) > 1:
                self._slots.remove(slot)
                self._meter.remove(slot.place)
                slot.close()
        if len(self._slots) > 1 and self._failure is None:
            self._sweep = asyncio.get_running_loop().call_later(_IDLE_SLOT_S, self._close_idle)

    def _on_slot_lost(self, slot: Slot) -> None:
        if slot is self._first:
            self.fail("its process 1 ended")
        elif slot in self._slots:
            self._slots.remove(slot)
            self._meter.remove(slot.place)
            self._ask_for_slots()

    def end_for_memory(self) -> None:
        """The sandbox uses more than it may: end what runs in it, because nobody can tell which of them it is."""
        for running in self._running():
            running.end_for_memory()

    def fail(self, reason: str) -> None:
        """It has ended: everything that ran or waited in it is lost. The first reason stands."""
        if self._failure is not None:
            return
        self._failure = reason
        self.standstill.close()
        if self._network is not None:
            self._network.forget()
        if reason == OUT_OF_MEMORY:
            self.end_for_memory()
        self._stall.close()
        for timer in (self._sweep, self._holding):
            if timer is not None:
                timer.cancel()
        for slot in self._slots:
            slot.close()
        self._meter.close()
        self._kernel_kills.close()
        self._waiting.lose()

    def forget(self) -> Collection[str]:
        """The sandbox is ended for good: nobody will take up what it ran; answers under which tags it did."""
        tags = [*self._tagged, *self._left, *self._noted]
        if tags and self._keeping is not None:
            self._keeping.forget(self._environment_id)
        self._noted.clear()
        self._tagged.clear()
        self.leave()
        return tags


def _is_resting(running: Running) -> bool:
    """Whether it is a session that waits for code."""
    return isinstance(running, SandboxSession) and running.status is SessionStatus.IDLE
