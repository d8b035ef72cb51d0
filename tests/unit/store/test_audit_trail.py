"""The audit trail ends when it is told to, with everything written."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from sandgate.core.audit import AuditChain, AuditEntry, by_service
from sandgate.core.clock import ManualClock
from sandgate.core.errors import StoreUnavailable
from sandgate.store.audit_trail import AuditTrail
from sandgate.store.base.audit import AuditStore


class _Store:
    """Keeps what is appended."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.asked = 0
        self.is_away = False

    async def append(self, entries: Sequence[AuditEntry], _chain: AuditChain) -> int:
        """Note it."""
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("away")
        self.entries.extend(entries)
        return len(self.entries)


async def _nobody(_name: str) -> Any:
    return None


async def test_an_entry_that_comes_together_with_the_end() -> None:
    """The end is not missed because of it, and the entry is written."""
    store, clock = _Store(), ManualClock()
    trail = AuditTrail(cast(AuditStore, store), AuditChain(b"key"), _nobody, clock)
    running = asyncio.ensure_future(trail.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    entry = by_service("end", clock.now(), None, {})
    trail.note(entry)
    # The event has woken the waiting task by now, which has not gone on yet.
    await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=1.0)
    assert done
    assert running.cancelled()
    assert store.entries == [entry]


async def test_those_who_wait_for_their_entries_do_not_all_try_a_database_that_is_away() -> None:
    """One does; what the others came with is written with the next that comes later."""
    store, clock = _Store(), ManualClock()
    trail = AuditTrail(cast(AuditStore, store), AuditChain(b"key"), _nobody, clock)
    store.is_away = True
    entries = [by_service(str(number), clock.now(), None, {}) for number in range(12)]
    await asyncio.gather(*map(trail.record, entries[:10]))
    assert (store.asked, trail.waiting) == (1, 10)
    store.is_away = False
    await trail.record(entries[10])
    assert store.asked == 1
    clock.advance(2)
    await trail.record(entries[11])
    assert store.entries == entries
