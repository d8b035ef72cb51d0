"""Runs that wait cost next to nothing: a little memory, and no work."""

import asyncio
import tracemalloc

from tests.unit.workflows.conftest import MakeOrchestra
from tests.unit.workflows.orchestra import LEASE_S

COUNT = 300
MOST_BYTES_EACH = 16 * 1024


async def test_runs_that_wait(make_orchestra: MakeOrchestra) -> None:
    """Each within its bound of memory; one write for all their leases; all taken over by the next process."""
    one = make_orchestra()
    await one.start()
    workflow_id = await one.make({"name": "ask", "type": "approval"})
    await one.service.start(one.user, workflow_id, {}, 0)
    tracemalloc.start()
    try:
        before, _peak = tracemalloc.get_traced_memory()
        runs = await asyncio.gather(*(one.service.start(one.user, workflow_id, {}, 0) for _run in range(COUNT)))
        after, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / COUNT < MOST_BYTES_EACH
    reached = one.faults.reached.copy()
    for _round in range(3):
        await one.patrol()
        await asyncio.sleep(0)
    assert one.faults.reached - reached == {"runs.renew.before": 3, "runs.renew.after": 3}
    await one.crash()
    two = make_orchestra(user=one.user, owner="two", clock=one.clock)
    two.clock.advance(LEASE_S + 1)
    await two.start()
    await two.patrol()
    assert two.engine.live_count == COUNT + 1
    await two.service.decide(two.user, runs[-1].run_id, "ask", approved=True, comment="")
    assert two.engine.live_count == COUNT
