"""The audit trail ends when it is told to, with everything written."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from sandgate.core.audit import AuditChain, AuditEntry, AuditOutcome, by_service
from sandgate.core.clock import ManualClock
from sandgate.core.errors import StoreUnavailable
from sandgate.core.ids import UserId, make_audit_id
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
    done, _ = await asyncio.wait({running}, timeout=30)
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


async def test_what_one_user_does_all_the_time_fills_no_log() -> None:
    """A day of executions at full rate is some entries a minute; refusals do not share them."""
    store, clock = _Store(), ManualClock()
    trail = AuditTrail(cast(AuditStore, store), AuditChain(b"key"), _nobody, clock, most_alike_done=3)
    one = by_service("execute", clock.now(), None, {})
    for minute in range(2):
        for _ in range(1000):
            trail.note_often(replace(one, audit_id=make_audit_id(), actor_id=UserId("user-1")))
        trail.note_often(replace(one, audit_id=make_audit_id(), actor_id=UserId("user-2")))
        trail.refuse(replace(one, audit_id=make_audit_id(), outcome=AuditOutcome.REFUSED, code="NO"))
        clock.advance(61)
        trail.sum_up()
        await trail.flush()
        assert [entry.times for entry in store.entries[6 * minute :]] == [1, 1, 1, 1, 1, 997]
