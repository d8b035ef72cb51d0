"""The audit trail ends when it is told to, with everything written."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from sandgate.core.audit import AuditChain, AuditEntry, by_service
from sandgate.core.clock import ManualClock
from sandgate.store.audit_trail import AuditTrail
from sandgate.store.base.audit import AuditStore


class _Store:
    """Keeps what is appended."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    async def append(self, entries: Sequence[AuditEntry], _chain: AuditChain) -> int:
        """Note it."""
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
