"""Sends what comes to an execution as fast as it reads, and no faster."""

import asyncio
from collections.abc import Callable


class Outlet:
    """See :class:`sandgate.core.execution.InputSource`; one task writes."""

    def __init__(self) -> None:
        self._piece = b""
        self._resume: Callable[[], None] | None = None
        self._taken: asyncio.Future[None] | None = None
        self._closed = False
        self._begun = asyncio.Event()

    def take(self, resume: Callable[[], None]) -> bytes:
        """See :class:`sandgate.core.execution.InputSource`."""
        self._begun.set()
        piece, self._piece = self._piece, b""
        self._resume = None if piece else resume
        self._wake()
        return piece

    async def wait_for_reader(self) -> None:
        """Wait until it is asked for the first time what there is to send, or nobody will ask."""
        await self._begun.wait()

    async def put(self, piece: bytes) -> bool:
        """Send it, once what came before was taken. False when nobody reads any more."""
        while self._piece and not self._closed:
            self._taken = asyncio.get_running_loop().create_future()
            await self._taken
        if self._closed:
            return False
        self._piece = piece
        resume, self._resume = self._resume, None
        if resume is not None:
            resume()
        return True

    def close(self) -> None:
        """Nobody reads any more."""
        self._closed = True
        self._begun.set()
        self._wake()

    def _wake(self) -> None:
        taken, self._taken = self._taken, None
        if taken is not None and not taken.done():
            taken.set_result(None)
