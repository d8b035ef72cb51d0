"""What would keep the event loop busy for long is done in a thread beside it, one piece of work after the other."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

_Answer = TypeVar("_Answer")


class Aside:
    """The loop goes on meanwhile, slower: that each of these has one thread at most bounds what it loses."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def do(self, work: Callable[[], _Answer]) -> _Answer:
        """Do it when it is its turn, in the order of asking. Raises what ``work`` raises.

        When it is cancelled, what has begun goes on, and nothing else begins before its end.
        """
        await self._turn.acquire()
        working = asyncio.get_running_loop().run_in_executor(None, work)
        working.add_done_callback(self._end)
        return await asyncio.shield(working)

    def _end(self, done: "asyncio.Future[_Answer]") -> None:
        self._turn.release()
        if not done.cancelled():
            # Asked for, because whoever waited for it may be gone.
            done.exception()
