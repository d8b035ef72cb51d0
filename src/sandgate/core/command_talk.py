"""What is said to a command while it runs, between who uses it and its sandbox."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sandgate.core.command import Command, Order, OrderKind

# Input that waits here to be sent; as much again may be on its way, or waits for the command inside.
_MOST_WAITING_BYTES = 64 * 1024


class CommandTalk:
    """Between who uses a command and the sandbox that it runs in. Of input no more is taken than there is room for.

    What is no input never waits behind input that the command does not read.
    """

    def __init__(self, window_bytes: int) -> None:
        """``window_bytes`` is how much input may have been sent without the command having taken it."""
        self._window_bytes = window_bytes
        self._orders: deque[Order] = deque()
        self._input = bytearray()
        self._under_way = 0
        self._ends_input = False
        self._resume: Callable[[], None] | None = None
        self._changed: asyncio.Future[None] | None = None
        self.pid: int | None = None
        self.takes_input = True

    # For who uses it

    async def feed(self, data: bytes, limit_s: float | None) -> int:
        """Give it input; how much was taken before the time was up, or before it took no more."""
        taken = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while taken < len(data) and self.takes_input:
                    some = self.feed_some(data[taken : taken + _MOST_WAITING_BYTES])
                    taken += some
                    if not some:
                        await self.wait_for_change()
        return taken

    def feed_some(self, data: bytes) -> int:
        """Give it as much input as there is room for; how much."""
        if not self.takes_input or self._ends_input:
            return 0
        some = data[: max(0, _MOST_WAITING_BYTES - len(self._input))]
        self._input += some
        if some:
            self._wake_sandbox()
        return len(some)

    def end_input(self) -> None:
        """There is no more."""
        self._ends_input = True
        self._wake_sandbox()

    def tell(self, order: Order) -> None:
        """Tell it something that is no input."""
        if order.kind is OrderKind.RESIZE:
            # Of several that wait only the newest matters.
            self._orders = deque(each for each in self._orders if each.kind is not OrderKind.RESIZE)
        self._orders.append(order)
        self._wake_sandbox()

    @property
    def waiting_orders(self) -> int:
        """How many orders the sandbox has not taken yet."""
        return len(self._orders)

    async def wait_for_change(self) -> None:
        """Wait until it has begun, has taken input, or takes no more."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    # For the sandbox

    def take(self, resume: Callable[[], None]) -> Sequence[Order]:
        """What it is to be told now; ``resume`` is called when there is more."""
        orders, self._orders = list(self._orders), deque()
        room = self._window_bytes - self._under_way
        if self._input and room > 0:
            data = bytes(self._input[:room])
            del self._input[: len(data)]
            self._under_way += len(data)
            orders.append(Order(OrderKind.INPUT, data))
            self._changes()
        if self._ends_input and not self._input and self.takes_input:
            self.takes_input = False
            orders.append(Order(OrderKind.INPUT_END))
            self._changes()
        self._resume = None if orders else resume
        return orders

    def on_begun(self, pid: int) -> None:
        """It runs."""
        self.pid = pid
        self._changes()

    def on_taken(self, count: int) -> None:
        """It has taken so many bytes of input."""
        self._under_way = max(0, self._under_way - count)
        self._wake_sandbox()

    def on_input_closed(self) -> None:
        """It reads no more, or has ended."""
        self.takes_input = False
        self._input.clear()
        self._changes()

    def _wake_sandbox(self) -> None:
        resume, self._resume = self._resume, None
        if resume is not None:
            resume()

    def _changes(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)


@dataclass(frozen=True, slots=True)
class CommandStart:
    """What a sandbox is given: the command, and what is between it and who uses it.

    ``note`` is left with the tag for a later gateway, which has to know what it takes up.
    """

    command: Command
    talk: CommandTalk
    note: bytes = b""
