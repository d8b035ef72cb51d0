"""What keeps the event loop busy for a moment is done one by one, with room between for everything else."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

_Answer = TypeVar("_Answer")


class OneByOne:
    """The bound of one piece of work is its own; this bounds how much of it comes in a row."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def do(self, work: Callable[[], _Answer]) -> _Answer:
        """Do it when it is its turn, in the order of asking. Raises what ``work`` raises."""
        async with self._turn:
            # Whoever was behind the last piece of work, as a request that has come meanwhile, goes first.
            await asyncio.sleep(0)
            return work()
