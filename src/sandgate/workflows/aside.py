"""What would keep the event loop busy for long is done in a thread beside it, one piece of work after the other."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sandgate.core.fair_slots import FairSlots

_Answer = TypeVar("_Answer")


class Aside:
    """The loop goes on meanwhile, slower: that each of these has one thread at most bounds what it loses."""

    def __init__(self) -> None:
        self._turns = FairSlots(1, 1)

    async def do(self, work: Callable[[], _Answer], owner: str = "") -> _Answer:
        """Do it when it is its turn: owners take turns, each in the order of its asking. Raises what ``work`` raises.

        When it is cancelled, what has begun goes on, and nothing else begins before its end.
        """
        await self._turns.take(owner)
        working = asyncio.get_running_loop().run_in_executor(None, work)
        working.add_done_callback(partial(self._end, owner))
        return await asyncio.shield(working)

    def _end(self, owner: str, done: "asyncio.Future[_Answer]") -> None:
        self._turns.give_back(owner)
        if not done.cancelled():
            # Asked for, because whoever waited for it may be gone.
            done.exception()
