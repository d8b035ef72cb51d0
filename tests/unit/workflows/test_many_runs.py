"""Runs that wait cost next to nothing: a little memory, and no work."""

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from types import FrameType

from sandgate.config.settings import Settings
from sandgate.core.page import PageRequest
from sandgate.core.run import Run, RunStatus
from sandgate.store.base import RunFilter
from tests.unit.workflows.conftest import MakeOrchestra
from tests.unit.workflows.orchestra import LEASE_S, LIMIT_S, code

COUNT = 300
FEW, MANY = 100, 1_000
MOST_BYTES_EACH = 16 * 1024
ENDED, MOST_BYTES_LEFT = 100, 1500


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


async def test_runs_that_have_ended_are_not_held(make_orchestra: MakeOrchestra) -> None:
    """However many there were: nothing of them, of their sandboxes or of what was got ready for them."""
    one = make_orchestra()
    await one.start()
    workflow_id = await one.make(code("hello", "print('x')"))

    async def play(count: int) -> None:
        for _run in range(count):
            await one.service.start(one.user, workflow_id, {}, LIMIT_S)

    await play(20)
    tracemalloc.start()
    try:
        await play(20)
        gc.collect()
        before, _peak = tracemalloc.get_traced_memory()
        await play(ENDED)
        gc.collect()
        after, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert one.engine.live_count == 0
    assert (after - before) / ENDED < MOST_BYTES_LEFT
    await one.stop()


async def _calls(work: Callable[[], Awaitable[object]]) -> int:
    """How many Python functions the event loop's thread calls for it."""
    count = 0

    def see(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        await work()
    finally:
        sys.setprofile(before)
    return count


async def test_a_thousand_that_live_are_no_more_work_than_a_hundred(make_orchestra: MakeOrchestra) -> None:
    """No task and no timer for each, and a question about one, or for a page of them, looks at no other."""
    one = make_orchestra(settings=Settings(max_runs=2 * MANY))
    await one.start()
    workflow_id = await one.make({"name": "ask", "type": "approval"})
    page, waiting = PageRequest(limit=50), RunFilter(statuses=frozenset({RunStatus.WAITING}))
    questions: dict[str, Callable[[], Awaitable[object]]] = {
        "status": lambda: one.service.view_newest(one.user, workflow_id, None),
        "list": lambda: one.service.list_runs(one.user, RunFilter(), page),
        "list of live": lambda: one.service.list_runs(one.user, waiting, page),
        "list of workflows": lambda: one.service.list(one.user, page),
        "one more": lambda: one.service.start(one.user, workflow_id, {}, 0),
        "a decision": lambda: one.service.decide(one.user, runs.pop().run_id, "ask", approved=True, comment=""),
    }
    runs: list[Run] = []
    seen: dict[int, dict[str, int]] = {}
    tasks: dict[int, int] = {}
    for count in (FEW, MANY):
        while len(runs) < count:
            runs += await asyncio.gather(*(one.service.start(one.user, workflow_id, {}, 0) for _run in range(100)))
        assert one.engine.live_count >= count
        await asyncio.sleep(0)
        tasks[count] = len(asyncio.all_tasks())
        for ask in questions.values():
            await ask()
        seen[count] = {what: await _calls(ask) for what, ask in questions.items()}
    assert tasks[MANY] == tasks[FEW]
    assert all(seen[MANY][what] <= 1.2 * seen[FEW][what] + 20 for what in questions), seen
    await one.stop()
