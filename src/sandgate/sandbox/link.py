"""The gateway's side of a sandbox: hands executions to slots, and asks for slots when executions wait.

Everything that the sandbox sends is hostile: whatever does not fit the protocol ends the sandbox, and no more.
"""

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable

from sandgate.core.errors import SandboxFailed, TooManyExecutions
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import Limits
from sandgate.sandbox.execution import ZygoteExecution
from sandgate.sandbox.slot import Slot
from sandgate_agent import descriptors, wire

QUEUE_LIMIT = 256
_IDLE_SLOT_S = 10.0
_RETRY_S = 0.02


class SandboxLink:
    """See :class:`sandgate.sandbox.base.Sandbox`.

    ``count_kills()`` answers how often the kernel ran out of memory in this sandbox; ``extend(seconds)`` moves its end.
    """

    def __init__(
        self,
        environment_id: EnvironmentId,
        control: socket.socket,
        limits: Limits,
        *,
        count_kills: Callable[[], Awaitable[int]],
        extend: Callable[[float], Awaitable[None]],
    ) -> None:
        control.setblocking(False)
        self._environment_id = environment_id
        self._control = control
        self._limits = limits
        self._count_kills = count_kills
        self._extend = extend
        self._slots: list[Slot] = []
        self._waiting: deque[ZygoteExecution] = deque()
        self._asked = 0
        self._numbers = 0
        self._kills = 0
        self._failure: str | None = None
        self._adopted: asyncio.Future[None] | None = None
        self._adopt_number = 0
        self._sweep: asyncio.TimerHandle | None = None
        asyncio.get_running_loop().add_reader(control.fileno(), self._on_readable)

    @property
    def environment_id(self) -> EnvironmentId:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        return self._environment_id

    @property
    def failure(self) -> str | None:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        return self._failure

    def expect_first_slot(self) -> None:
        """A new sandbox makes its first slot unasked."""
        self._asked = 1

    async def adopt(self, limit_s: float = 5.0) -> None:
        """Make the sandbox forget what it ran for an earlier gateway. Raises ``SandboxFailed``."""
        self._adopted = asyncio.get_running_loop().create_future()
        self._adopt_number = time.monotonic_ns()
        self._say(wire.ADOPT, self._adopt_number)
        try:
            async with asyncio.timeout(limit_s):
                await self._adopted
        except TimeoutError:
            raise SandboxFailed("The sandbox did not answer the gateway that adopted it.") from None
        finally:
            self._adopted = None
        self._ask_for_slot()

    def execute(self, request: ExecutionRequest) -> ZygoteExecution:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        if self._failure is not None:
            raise SandboxFailed(f"The sandbox has ended: {self._failure}", {"reason": self._failure})
        if len(self._waiting) >= QUEUE_LIMIT:
            raise TooManyExecutions(
                f"{QUEUE_LIMIT} executions wait in this environment already; try again when some have ended.",
                {"limit": QUEUE_LIMIT},
            )
        execution = ZygoteExecution(request, self._limits, self._was_out_of_memory)
        ready = next((slot for slot in self._slots if slot.is_ready), None)
        if ready is not None and not self._waiting:
            ready.start(execution, self._kills)
        else:
            self._waiting.append(execution)
            self._ask_for_slots()
        return execution

    async def extend(self, lifetime_s: float) -> None:
        """See :class:`sandgate.sandbox.base.Sandbox`."""
        await self._extend(lifetime_s)

    async def _was_out_of_memory(self, kills_before: int) -> bool:
        self._kills = max(self._kills, await self._count_kills())
        return self._kills > kills_before

    # Slots

    def _ask_for_slots(self) -> None:
        """Ask for as many slots as executions wait, beyond those that are getting ready, within the limit."""
        coming = self._asked + sum(1 for slot in self._slots if not slot.is_busy and not slot.is_ready)
        room = self._limits.concurrent_executions - len(self._slots) - self._asked
        for _slot in range(min(room, len(self._waiting) - coming)):
            self._ask_for_slot()

    def _ask_for_slot(self) -> None:
        self._asked += 1
        self._numbers += 1
        self._say(wire.NEW_SLOT, self._numbers)

    def _say(self, kind: bytes, number: int) -> None:
        try:
            self._control.send(wire.pack_numbered(kind, number))
        except OSError as error:
            self.fail(f"its keeper does not listen: {error}")

    def _on_ready(self, slot: Slot) -> None:
        while self._waiting:
            execution = self._waiting.popleft()
            if not execution.ended:
                slot.start(execution, self._kills)
                return
        slot.idle_since = time.monotonic()
        if len(self._slots) > 1 and self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_IDLE_SLOT_S, self._close_idle)

    def _close_idle(self) -> None:
        """Let go of slots that nobody has needed for a while; one always stays."""
        self._sweep = None
        if self._failure is not None:
            return
        before = time.monotonic() - _IDLE_SLOT_S * 0.9
        for slot in [slot for slot in self._slots if slot.is_ready and slot.idle_since < before]:
            if len(self._slots) > 1:
                self._slots.remove(slot)
                slot.close()
        if len(self._slots) > 1:
            self._sweep = asyncio.get_running_loop().call_later(_IDLE_SLOT_S, self._close_idle)

    def _on_slot_lost(self, slot: Slot) -> None:
        if slot in self._slots:
            self._slots.remove(slot)
        if self._failure is None and not self._slots and not self._asked:
            self._ask_for_slot()
        elif self._failure is None:
            self._ask_for_slots()

    # What the keeper says

    def _on_readable(self) -> None:
        while self._failure is None:
            try:
                message, received = descriptors.receive(self._control, 2)
            except BlockingIOError:
                return
            except OSError:
                message, received = b"", []
            if not message:
                self.fail("its keeper ended")
                return
            try:
                self._on_message(message, received)
            except wire.WireError as error:
                for descriptor in received:
                    os.close(descriptor)
                self.fail(f"its keeper broke the protocol: {error}")

    def _on_message(self, message: bytes, received: list[int]) -> None:
        kind, number = wire.parse_numbered(message)
        if self._adopted is not None:
            self._on_adopting(kind, number, received)
            return
        if kind != wire.SLOT or len(received) > 1 or self._asked < 1:
            raise wire.WireError("expected a slot that was asked for")
        self._asked -= 1
        if received:
            self._slots.append(Slot(socket.socket(fileno=received[0]), self._on_ready, self._on_slot_lost))
        else:
            # The environment has used up its processes; some execution has to end first.
            asyncio.get_running_loop().call_later(_RETRY_S, self._retry)

    def _retry(self) -> None:
        if self._failure is not None:
            return
        if not self._slots and not self._asked:
            self._ask_for_slot()
        else:
            self._ask_for_slots()

    def _on_adopting(self, kind: bytes, number: int, received: list[int]) -> None:
        """Skip whatever the keeper had said to the gateway before."""
        for descriptor in received:
            os.close(descriptor)
        if kind == wire.ADOPT and number == self._adopt_number and self._adopted and not self._adopted.done():
            self._adopted.set_result(None)

    def fail(self, reason: str) -> None:
        """It has ended: everything that ran or waited in it is lost. The first reason stands."""
        if self._failure is not None:
            return
        self._failure = reason
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        if self._sweep is not None:
            self._sweep.cancel()
        if self._adopted is not None and not self._adopted.done():
            self._adopted.set_exception(SandboxFailed(f"The sandbox has ended: {reason}"))
        slots, self._slots = self._slots, []
        for slot in slots:
            slot.close()
        while self._waiting:
            self._waiting.popleft().on_lost()
