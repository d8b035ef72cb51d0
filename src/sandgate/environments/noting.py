"""Writes that sandboxes are there: several in one statement, and not while their first executions are about to end."""

import asyncio

from sandgate.core.errors import MechanismFault
from sandgate.core.ids import EnvironmentId
from sandgate.environments.live import LiveEnvironment
from sandgate.environments.tasks import TaskOwner
from sandgate.store.base import EnvironmentStore
from sandgate.telemetry.log import get_logger

# Longer than a first execution takes as a rule, and no time for somebody who looks into another server's list.
PAUSE_S = 0.05

_log = get_logger(__name__)


class RunningNotes:
    """The rows that say ``creating`` though memory says ``running``.

    Nothing depends on the write: what is asked of this server is answered from memory, an environment may end from
    either status, and a later start finds out by itself.
    """

    def __init__(self, store: EnvironmentStore, tasks: TaskOwner) -> None:
        self._store = store
        self._tasks = tasks
        self._waiting: list[LiveEnvironment] = []
        self._writing: asyncio.Task[None] | None = None

    def add(self, live: LiveEnvironment) -> None:
        """Its sandbox is there."""
        self._waiting.append(live)
        if self._writing is None:
            self._writing = self._tasks.spawn(self._write_later(), "note what runs")

    def close(self) -> None:
        """Everything is about to end, and that is what will be written of it."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    async def flush(self) -> None:
        """Write what waits, before somebody looks for rows by their status."""
        if self._waiting:
            await self._write()

    async def _write_later(self) -> None:
        await asyncio.sleep(PAUSE_S)
        # What comes during the write has a task of its own.
        self._writing = None
        await self._write()

    async def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        # The end of one that has ended meanwhile is written without it.
        names: list[EnvironmentId] = [live.environment_id for live in waiting if live.ending is None]
        if not names:
            return
        try:
            await self._store.note_running(names)
        except MechanismFault as fault:
            _log.warning("status not written", environments=len(names), reason=fault.message)
