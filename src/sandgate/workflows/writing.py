"""Writes what a run has come to, for as long as that takes."""

import asyncio
from collections.abc import Sequence

from sandgate.core.errors import StoreUnavailable
from sandgate.core.ids import SignalId
from sandgate.core.run import Run
from sandgate.store.base import RunChange, RunStore
from sandgate.telemetry.log import get_logger
from sandgate.workflows.events import Changes

_FIRST_RETRY_DELAY_S = 0.05
_LONGEST_RETRY_DELAY_S = 2.0

_log = get_logger(__name__)


def change_of(changes: Changes, signals: Sequence[SignalId] = ()) -> RunChange:
    """What is to be written of what follows, and of the signals that it follows from."""
    return RunChange(changes.run, changes.steps, changes.history, signals, changes.artifacts)


class RunWriter:
    """Goes on while the database is away."""

    def __init__(self, store: RunStore) -> None:
        self._store = store

    async def write(self, before: Run, changes: Changes, signals: Sequence[SignalId]) -> bool:
        """Until it is written; False when the run is no longer this process's."""
        if changes.run == before and not changes.steps and not signals:
            return True
        change = change_of(changes, signals)
        delay_s = _FIRST_RETRY_DELAY_S
        while True:
            try:
                return await self._store.apply(change) or await self._has_ended_so(changes)
            except StoreUnavailable as fault:
                _log.warning("run not written yet", run_id=before.run_id, reason=fault.message)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_RETRY_DELAY_S)

    async def _has_ended_so(self, changes: Changes) -> bool:
        """Whether the end of a run was written before, by a call whose answer got lost."""
        if changes.run.is_live:
            return False
        found = await self._store.find(changes.run.run_id)
        wanted = (changes.run.status, changes.run.fence, changes.run.events)
        return found is not None and (found.status, found.fence, found.events) == wanted
