"""Environments that wait together for the files of another one."""

import asyncio
from collections.abc import Collection, Iterable

from sandgate.core.errors import SandboxFailed, SandgateError
from sandgate.core.ids import EnvironmentId
from sandgate.environments.archive_source import Source


class CopyGroup:
    """Copies of one environment: those whose sandbox is there wait until all of them are, or have ended."""

    def __init__(self, names: Iterable[EnvironmentId]) -> None:
        self._coming = set(names)
        self._waiting: dict[EnvironmentId, asyncio.Future[Source | None]] = {}
        self._complete = asyncio.Event()
        self._is_closed = False

    async def arrive(self, environment_id: EnvironmentId) -> Source | None:
        """Wait for the files: None when they are there, otherwise what they are to be read from, by the caller.

        Raises ``SandboxFailed``.
        """
        if self._is_closed:
            raise SandboxFailed("the copies were given up")
        told: asyncio.Future[Source | None] = asyncio.get_running_loop().create_future()
        self._waiting[environment_id] = told
        self._count_out(environment_id)
        try:
            return await told
        except asyncio.CancelledError:
            source = told.result() if told.done() and not told.cancelled() and told.exception() is None else None
            if source is not None:
                source.release()
            raise

    def leave(self, environment_id: EnvironmentId) -> None:
        """It has ended."""
        self._waiting.pop(environment_id, None)
        self._count_out(environment_id)

    def _count_out(self, environment_id: EnvironmentId) -> None:
        self._coming.discard(environment_id)
        if not self._coming:
            self._complete.set()

    async def wait(self) -> Collection[EnvironmentId]:
        """Those that wait, once nobody is coming any more."""
        await self._complete.wait()
        return tuple(self._waiting)

    def finish(self, environment_id: EnvironmentId, fault: SandgateError | None) -> None:
        """It has its files, or never will."""
        told = self._waiting.pop(environment_id, None)
        if told is None or told.done():
            return
        if fault is None:
            told.set_result(None)
        else:
            told.set_exception(SandboxFailed(f"its files could not be copied: {fault.message}"))

    def close(self) -> None:
        """Nobody gets files any more."""
        self._is_closed = True
        for name in tuple(self._waiting):
            self.finish(name, SandboxFailed("the copies were given up"))

    def give(self, source: Source, readers: int) -> None:
        """Let all that wait read their files from here. ``readers`` is how many were to; the rest is released."""
        given = 0
        for told in self._waiting.values():
            if not told.done() and given < readers:
                told.set_result(source)
                given += 1
        self._waiting.clear()
        for _missing in range(readers - given):
            source.release()
