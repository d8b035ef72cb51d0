"""A sandbox that stands still, as the gateway sees it: all of it, or all but what is done in a slot that is apart."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol, Self

from sandgate.core.errors import LauncherUnavailable, SandboxFailed
from sandgate.core.execution import ExecutionRequest
from sandgate.sandbox.execution import ZygoteExecution
from sandgate.sandbox.slot import Slot

_READY_LIMIT_S = 5.0


class TimeKeeper(Protocol):
    """What has a time limit."""

    def stand_still(self) -> None:
        """Its time does not go on."""
        ...

    def go_on(self) -> None:
        """Its time goes on."""
        ...


class Orders(Protocol):
    """What the launcher is told. Each raises ``LauncherUnavailable``, ``SandboxFailed``."""

    async def freeze(self, *, but_apart: bool = False) -> bool:
        """See :class:`sandgate.sandbox.commands.SandboxCommands`."""
        ...

    async def thaw(self) -> None:
        """See :class:`sandgate.sandbox.commands.SandboxCommands`."""
        ...

    async def add_slot_apart(self) -> socket.socket:
        """See :class:`sandgate.sandbox.commands.SandboxCommands`."""
        ...


class Apart:
    """See :class:`sandgate.sandbox.base.SandboxApart`."""

    def __init__(self, control: socket.socket, make: Callable[[ExecutionRequest], ZygoteExecution]) -> None:
        self._make = make
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._slot = Slot(control, self._on_ready, self._on_lost)
        # What has no child yet.
        self._next: ZygoteExecution | None = None

    async def wait_until_ready(self) -> None:
        """Wait until a child waits in it. Raises ``SandboxFailed``."""
        try:
            async with asyncio.timeout(_READY_LIMIT_S):
                await asyncio.shield(self._ready)
        except TimeoutError:
            raise SandboxFailed("The sandbox started no process", {"reason": "it started no process"}) from None

    def execute(self, request: ExecutionRequest) -> ZygoteExecution:
        """See :class:`sandgate.sandbox.base.SandboxApart`."""
        execution = self._make(request)
        # What else the sandbox has used meanwhile is none of its own.
        execution.share()
        if self._slot.is_ready:
            self._start(execution)
        elif self._slot.running is None and self._next is None and self._slot.control >= 0:
            # The child that waited has been ended: the next one may be had a moment later.
            self._next = execution
            self._slot.ask_for_next()
            asyncio.get_running_loop().call_later(_READY_LIMIT_S, self._lose, execution)
        else:
            execution.on_lost()
        return execution

    def _start(self, execution: ZygoteExecution) -> None:
        self._slot.start(execution, execution.kernel_kills.look(), hold=True)

    def _lose(self, execution: ZygoteExecution | None) -> None:
        """No child has come for it."""
        if execution is not None and execution is self._next:
            self._next = None
            execution.on_lost()

    def close(self) -> None:
        """End it with what is done in it."""
        self._slot.close()
        self._lose(self._next)
        if not self._ready.done():
            self._ready.cancel()

    def _on_ready(self, _slot: Slot) -> None:
        if not self._ready.done():
            self._ready.set_result(None)
        following, self._next = self._next, None
        if following is not None and not following.ended:
            self._start(following)

    def _on_lost(self, _slot: Slot) -> None:
        self._lose(self._next)
        if not self._ready.done():
            self._ready.set_exception(SandboxFailed("A slot of the sandbox ended", {"reason": "its slot ended"}))


class Standstill:
    """See :class:`sandgate.sandbox.base.SandboxStandstill`."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._running: Callable[[], Iterable[TimeKeeper]] = tuple
        self._make: Callable[[ExecutionRequest], ZygoteExecution] | None = None
        self._over = asyncio.Event()
        self._over.set()

    def of(
        self,
        running: Callable[[], Iterable[TimeKeeper]],
        make: Callable[[ExecutionRequest], ZygoteExecution] | None = None,
    ) -> Self:
        """What has the children of the sandbox, at a moment: its time stands still along.

        ``make`` makes what is done in the slot that is apart.
        """
        self._running = running
        self._make = make
        return self

    def admit(self, begun: TimeKeeper) -> None:
        """What has begun while the sandbox stands still does so, too."""
        if self.is_on:
            begun.stand_still()

    @property
    def is_on(self) -> bool:
        """Whether it stands still, or is about to."""
        return not self._over.is_set()

    async def begin(self) -> bool:
        """See ``SandboxStandstill``."""
        return await self._begin(but_apart=False)

    async def begin_but(self) -> Apart:
        """See ``SandboxStandstill``."""
        assert self._make is not None  # noqa: S101 - only some tests do without
        apart = Apart(await self._orders.add_slot_apart(), self._make)
        try:
            await apart.wait_until_ready()
            await self._begin(but_apart=True)
        except BaseException:
            apart.close()
            raise
        return apart

    async def _begin(self, *, but_apart: bool) -> bool:
        self._over.clear()
        for each in self._running():
            each.stand_still()
        try:
            return await self._orders.freeze(but_apart=but_apart)
        except BaseException:
            # The order may have been carried out all the same.
            with suppress(LauncherUnavailable, SandboxFailed):
                await self._orders.thaw()
            self._go_on()
            raise

    async def end(self) -> None:
        """See ``SandboxStandstill``."""
        await self._orders.thaw()
        self._go_on()

    def _go_on(self) -> None:
        self._over.set()
        for each in self._running():
            each.go_on()

    async def wait_for_end(self) -> None:
        """Wait while it stands still."""
        await self._over.wait()

    def close(self) -> None:
        """The sandbox has ended: nobody waits any more."""
        self._over.set()
