"""The audit trail's own loop."""

import asyncio

import pytest

from sandgate.core.audit import by_service
from sandgate.core.clock import ManualClock
from sandgate.store.audit_trail import AuditTrail
from sandgate.store.sql_store import SqlStore
from tests.sqlite_store import database_path, empty_database, store
from tests.unit.http.site import Site

__all__ = ["database_path", "empty_database", "store"]


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_a_stop_that_comes_with_an_entry(turns: int, store: SqlStore) -> None:
    """Whoever is noted in the moment of the stop is written, and the stop is not forgotten over it."""
    clock = ManualClock()
    trail = AuditTrail(store.audit, Site.chain, store.users.find_by_name, clock)
    running = asyncio.ensure_future(trail.run())
    for _turn in range(3):
        await asyncio.sleep(0)
    trail.note(by_service("start", clock.now(), None, {}))
    for _turn in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    # Not awaited itself, or the time limit would cancel it once more.
    done, _ = await asyncio.wait({running}, timeout=3)
    running.cancel()
    assert done
    assert trail.waiting == 0
