"""Wakes up whoever waits for something about a run, wherever the run is worked on."""

import asyncio
from contextlib import suppress

from sandgate.core.ids import RunId


class RunWatch:
    """Words about runs get lost with connections, so that every wait has a limit, after which one looks."""

    def __init__(self) -> None:
        self._waiting: dict[RunId, set[asyncio.Future[None]]] = {}

    async def wait(self, run_id: RunId, limit_s: float) -> None:
        """Wait until something is said about the run, or the time is over."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(run_id, set())
        waiting.add(future)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await future
        finally:
            waiting.discard(future)
            if not waiting and self._waiting.get(run_id) is waiting:
                del self._waiting[run_id]

    def wake(self, run_id: RunId | None = None) -> None:
        """Wake up those who wait for a run; None: everybody."""
        groups = list(self._waiting.values()) if run_id is None else [self._waiting.get(run_id, set())]
        for future in [future for group in groups for future in group]:
            if not future.done():
                future.set_result(None)
