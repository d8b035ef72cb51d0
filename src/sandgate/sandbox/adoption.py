"""The part of a sandbox's link that takes up what an earlier gateway has left in it."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType

from sandgate.core.attempt_tag import parse_tag
from sandgate.core.errors import SandboxFailed, TooManyExecutions
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import Limits
from sandgate.core.session import SessionRequest
from sandgate.core.tidying import removal_of
from sandgate.sandbox.execution import ZygoteExecution
from sandgate.sandbox.kept_output import Keeping
from sandgate.sandbox.kernel_kills import KernelKills
from sandgate.sandbox.left_behind import LeftBehind, LeftSlot
from sandgate.sandbox.meter import Meter
from sandgate.sandbox.session import SandboxSession
from sandgate.sandbox.slot import Slot
from sandgate.sandbox.standstill import Standstill

_ADOPT_LIMIT_S = 5.0


class Adoption:
    """See ``SandboxLink``."""

    _environment_id: EnvironmentId
    _limits: Limits
    _first: Slot
    _slots: list[Slot]
    _slot_type: type[Slot]
    _places: Iterator[int]
    _left: dict[str, tuple[LeftBehind, Slot]]
    _kernel_kills: KernelKills
    _meter: Meter
    _keeping: Keeping | None
    standstill: Standstill

    def _on_ready(self, slot: Slot) -> None:
        raise NotImplementedError

    def _on_slot_lost(self, slot: Slot) -> None:
        raise NotImplementedError

    def _make_execution(self, request: ExecutionRequest) -> ZygoteExecution:
        raise NotImplementedError

    def _make_session(self, request: SessionRequest) -> SandboxSession:
        raise NotImplementedError

    def execute(self, request: ExecutionRequest) -> ZygoteExecution:
        """See ``SandboxLink``."""
        raise NotImplementedError

    def let_go(self, tag: str) -> None:
        """See ``SandboxLink``."""
        raise NotImplementedError

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
        # Whom they were to be laid to, the earlier gateway knew.
        await self._kernel_kills.note_end(0, could_be_meant=True)

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
        execution.metering = self._meter.begin(slot.place, is_whole=False)
        left.take_up(execution, lambda: slot.kill(left.number))
        self.standstill.admit(execution)
        return execution

    def resume_session(self, request: SessionRequest) -> SandboxSession | None:
        """Go on with a session that an earlier gateway began under the request's tag; None when there is none."""
        left, slot = self._left.pop(request.tag or "", (None, self._first))
        if left is None:
            return None
        session = self._make_session(request)
        session.interrupt_by(lambda: slot.interrupt(left.number))
        session.measured_by(lambda: self._meter.begin(slot.place))
        left.take_up(session, lambda: slot.kill(left.number))
        self.standstill.admit(session)
        return session

    def drop(self, tag: str) -> None:
        """End what an earlier gateway left under this tag, for which nobody asks."""
        left, slot = self._left.pop(tag, (None, self._first))
        if left is not None:
            slot.kill(left.number)
            left.close()
            self.let_go(tag)
            if self._keeping is not None:
                self._keeping.forget(self._environment_id, tag)

    def remove_files(self, tags: Iterable[str]) -> None:
        """Begin to remove the files of steps by the tags that they had; it may be in vain."""
        for folder in filter(None, (parse_tag(tag).folder for tag in tags)):
            with suppress(SandboxFailed, TooManyExecutions):
                self.execute(removal_of(folder))

    def leave(self) -> None:
        """What an earlier gateway left is for a later one."""
        for left, _slot in self._left.values():
            left.close()
        self._left.clear()
