"""Places for work that costs something, shared out among those that want them."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_Waiting = OrderedDict["asyncio.Future[None]", None]


class FairSlots:
    """``most`` places in all, ``most_of_one`` of one owner at most.

    Whoever waits is told by the one that leaves. A free place goes to the owners that wait in turn, each of which gives
    it to the first of its own: one that wants a thousand makes the others wait for one at most.
    """

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._taken = 0
        self._taken_by: dict[str, int] = {}
        self._waiting: dict[str, _Waiting] = {}
        # Those of them that could have another place, next first. Nobody is here while a place is free.
        self._turns: OrderedDict[str, None] = OrderedDict()

    @property
    def taken(self) -> int:
        """How many are taken."""
        return self._taken

    def taken_by(self, owner: str) -> int:
        """How many of them an owner has."""
        return self._taken_by.get(owner, 0)

    @asynccontextmanager
    async def place(self, owner: str) -> AsyncIterator[None]:
        """One of the places, for as long as the block takes."""
        await self.take(owner)
        try:
            yield
        finally:
            self.give_back(owner)

    async def take(self, owner: str) -> None:
        """One of the places, until it is given back, whoever does that."""
        if self._taken < self._most and self.taken_by(owner) < self._most_of_one:
            self._add(owner)
        else:
            await self._wait(owner)

    def give_back(self, owner: str) -> None:
        """Let the next have a place that this owner has taken."""
        self._taken -= 1
        self._taken_by[owner] -= 1
        if not self._taken_by[owner]:
            del self._taken_by[owner]
        self._line_up(owner)
        while self._turns and not self._serve(next(iter(self._turns))):
            continue

    async def _wait(self, owner: str) -> None:
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, OrderedDict())[told] = None
        self._line_up(owner)
        try:
            await told
        except asyncio.CancelledError:
            if told.cancelled():
                self._leave_line(owner, told)
            else:
                # It was given a place, and is not there any more to take it.
                self.give_back(owner)
            raise

    def _add(self, owner: str) -> None:
        self._taken += 1
        self._taken_by[owner] = self.taken_by(owner) + 1

    def _serve(self, owner: str) -> bool:
        """Give the owner's first its place; False when that one has been cancelled, and does not know it yet."""
        told = next(iter(self._waiting[owner]))
        self._leave_line(owner, told)
        if told.done():
            return False
        self._add(owner)
        self._turns.pop(owner, None)
        self._line_up(owner)
        told.set_result(None)
        return True

    def _line_up(self, owner: str) -> None:
        """The owner goes to the end, if it waits for nothing but its turn, and is not there yet."""
        if owner in self._waiting and self.taken_by(owner) < self._most_of_one:
            self._turns.setdefault(owner)

    def _leave_line(self, owner: str, told: "asyncio.Future[None]") -> None:
        """This one waits no more; it may have left before."""
        waiting = self._waiting.get(owner)
        if waiting is None:
            return
        waiting.pop(told, None)
        if not waiting:
            del self._waiting[owner]
            self._turns.pop(owner, None)
