"""What every database promises about schedules: of all who try the same tick, one starts its run."""

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sandgate.core.ids import make_run_id, make_schedule_id, make_workflow_id
from sandgate.core.page import PageRequest
from sandgate.core.run import Run, RunStatus
from sandgate.core.trigger import (
    Schedule,
    SkipReason,
    TickError,
    Timing,
    TriggerType,
)
from sandgate.store.base import RunChange, RunFilter
from sandgate.store.connections import Location
from sandgate.store.database import Database
from sandgate.store.schedules import SqlScheduleStore
from sandgate.store.sql_store import SqlStore
from sandgate.store.webhooks import SqlWebhookStore
from tests.contract.store.records import NOW, OTHER, OWNER, STRANGE_TEXT, a_run, a_schedule, a_user, a_workflow
from tests.contract.store.test_webhooks import a_webhook

ROOT = Path(__file__).parents[3]
MINUTE = timedelta(minutes=1)
PAGE = PageRequest()


async def _schedule(store: SqlStore, **changes: Any) -> Schedule:
    if "workflow_id" not in changes:
        workflow = a_workflow()
        await store.workflows.insert(workflow)
        changes["workflow_id"] = workflow.workflow_id
    schedule = a_schedule(**changes)
    assert await store.schedules.insert(schedule, 100)
    return schedule


def _run_of(schedule: Schedule, **changes: Any) -> Run:
    marks = {"trigger_type": TriggerType.SCHEDULE, "trigger_id": schedule.schedule_id, "trigger_at": NOW}
    return a_run(schedule.workflow_id, **marks, **changes)


def _after(schedule: Schedule, run: Run) -> Schedule:
    moved = replace(schedule, next_tick_at=NOW + MINUTE, due_at=NOW + MINUTE)
    return replace(moved, last_tick_at=NOW, last_run_at=NOW, last_run_id=run.run_id)


async def test_servers_that_add_at_once_share_what_is_allowed(store: SqlStore, database: Database) -> None:
    """To different workflows of one user; webhooks are counted by themselves."""
    user = a_user()
    await store.users.insert(user)
    workflows = [a_workflow(owner_id=user.user_id) for _ in range(2)]
    for workflow in workflows:
        await store.workflows.insert(workflow)
    schedules = (store.schedules, SqlScheduleStore(database))
    webhooks = (store.webhooks, SqlWebhookStore(database))
    asked = [
        adding
        for _ in range(8)
        for number, workflow in enumerate(workflows)
        for adding in (
            schedules[number].insert(a_schedule(workflow.workflow_id, owner_id=user.user_id), 3),
            webhooks[number].insert(a_webhook(workflow.workflow_id, owner_id=user.user_id), 3),
        )
    ]
    added = await asyncio.gather(*asked)
    assert (added[::2].count(True), added[1::2].count(True)) == (3, 3)
    assert len((await store.schedules.list(user.user_id, None, PAGE)).items) == 3
    assert len((await store.webhooks.list(user.user_id, None, PAGE)).items) == 3


async def test_a_schedule_comes_back_as_it_was(store: SqlStore) -> None:
    """Every field; an unknown one is None."""
    schedule = await _schedule(
        store,
        paused=True,
        queue=(NOW, NOW + MINUTE),
        last_tick_at=NOW,
        last_run_at=NOW,
        last_run_id=make_run_id(),
        last_error=TickError("FORBIDDEN", STRANGE_TEXT, NOW),
        last_skipped_at=NOW,
        last_skip_reason=SkipReason.QUEUE_FULL,
    )
    assert await store.schedules.find(schedule.schedule_id) == schedule
    every = replace(schedule, timing=Timing(interval_s=7, anchor_at=NOW))
    assert await store.schedules.replace(schedule, every) == replace(every, revision=2)
    assert await store.schedules.find(schedule.schedule_id) == replace(every, revision=2)
    assert await store.schedules.find(make_schedule_id()) is None


async def test_of_two_writers_one_wins(store: SqlStore) -> None:
    """The revision decides; who lost changes nothing."""
    schedule = await _schedule(store)
    first = await store.schedules.replace(schedule, replace(schedule, paused=True))
    assert first == replace(schedule, paused=True, revision=2)
    assert await store.schedules.replace(schedule, replace(schedule, name="lost")) is None
    assert await store.schedules.find(schedule.schedule_id) == first


async def test_a_tick_and_its_run_are_written_together(store: SqlStore) -> None:
    """The run has the mark of what started it; a second run for the same revision is not written."""
    schedule = await _schedule(store)
    run, again = _run_of(schedule), _run_of(schedule)
    assert await store.schedules.fire(schedule, _after(schedule, run), RunChange(run))
    assert not await store.schedules.fire(schedule, _after(schedule, again), RunChange(again))
    assert await store.runs.find(run.run_id) == run
    assert await store.runs.find(again.run_id) is None
    assert await store.schedules.find(schedule.schedule_id) == replace(_after(schedule, run), revision=2)


async def test_many_processes_and_one_tick_are_one_run(store: SqlStore, location: Location) -> None:
    """Connections of other processes try at the same time, again and again: each tick starts exactly one run."""
    schedule = await _schedule(store)
    stores = [store, *(SqlStore(location, read_threads=1, checkpoint=False) for _ in range(3))]
    for other in stores[1:]:
        await other.open()
    for tick in range(10):
        runs = [_run_of(schedule) for _ in range(8)]
        tries = [
            stores[n % 4].schedules.fire(schedule, _after(schedule, run), RunChange(run)) for n, run in enumerate(runs)
        ]
        assert sorted(await asyncio.gather(*tries)) == [False] * 7 + [True]
        there = [run for run in runs if await store.runs.find(run.run_id) is not None]
        found = await store.schedules.find(schedule.schedule_id)
        assert found is not None
        assert [run.run_id for run in there] == [found.last_run_id]
        assert found.revision == tick + 2
        schedule = found
    for other in stores[1:]:
        await other.close()


def _kill_while_firing(location: Location, schedule: Schedule, points: random.Random) -> None:
    command = [sys.executable, "-m", "tests.contract.store.firing_process", str(location), schedule.schedule_id]
    for _ in range(2):
        processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
        for process in processes:
            assert process.stdout is not None
            with process.stdout as output:
                for _ in range(points.randrange(1, 40)):
                    assert output.readline() == b"x\n"
                process.send_signal(signal.SIGKILL)
                output.read()
            assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_processes_killed_around_ticks_lose_none_and_double_none(
    store: SqlStore, location: Location, seed: int
) -> None:
    """Two processes fire the same schedule and are killed at any moment: each tick up to the last has its one run."""
    schedule = await _schedule(store)
    _kill_while_firing(location, schedule, random.Random(seed))
    found = await store.schedules.find(schedule.schedule_id)
    assert found is not None
    assert found.revision > 4
    ticks = [run.trigger_at async for run in _all_runs(store)]
    assert ticks == [NOW + n * MINUTE for n in range(found.revision - 1)]
    assert found.next_tick_at == NOW + (found.revision - 1) * MINUTE


async def _all_runs(store: SqlStore) -> AsyncIterator[Run]:
    """Oldest tick first."""
    runs: list[Run] = []
    page = await store.runs.list(RunFilter(), PageRequest(200))
    runs.extend(page.items)
    while page.next_before_id is not None:
        page = await store.runs.list(RunFilter(), PageRequest(200, page.next_before_id))
        runs.extend(page.items)
    for run in sorted(runs, key=lambda run: run.trigger_at or NOW):
        yield run


async def test_nothing_is_started_of_a_deleted_workflow(store: SqlStore) -> None:
    """Its schedules go with it, in the same transaction; none can be made."""
    schedule = await _schedule(store)
    other = await _schedule(store)
    assert await store.workflows.delete(schedule.workflow_id, NOW)
    assert await store.schedules.find(schedule.schedule_id) is None
    assert await store.schedules.find(other.schedule_id) == other
    run = _run_of(schedule)
    assert not await store.schedules.fire(schedule, _after(schedule, run), RunChange(run))
    assert await store.runs.find(run.run_id) is None
    assert await store.schedules.insert(replace(schedule, schedule_id=make_schedule_id()), 100) is None


async def test_due_ones_are_found_in_order(store: SqlStore) -> None:
    """The longest due first, no more than asked for; then those with ticks that wait. Others tell when they are due."""
    late = await _schedule(store)
    now = replace(late, due_at=NOW + MINUTE)
    second = await store.schedules.replace(late, now)
    assert second is not None
    first = await _schedule(store)
    waiting = await _schedule(store)
    idle = replace(waiting, due_at=None, next_tick_at=None, queue=(NOW,))
    third = await store.schedules.replace(waiting, idle)
    assert await store.schedules.list_due(NOW + MINUTE, 9) == [first, second, third]
    assert await store.schedules.list_due(NOW, 1) == [first, third]
    assert await store.schedules.find_next_due(NOW) == NOW + MINUTE
    assert await store.schedules.find_next_due(NOW + MINUTE) is None


async def test_live_runs_of_a_schedule_are_known(store: SqlStore) -> None:
    """Those that have not ended, and none of another cause."""
    schedule = await _schedule(store)
    runs = [_run_of(schedule), _run_of(schedule), a_run(schedule.workflow_id)]
    for run in runs:
        await store.runs.insert(RunChange(run))
    assert list(await store.schedules.list_live_runs(schedule.schedule_id)) == [run.run_id for run in runs[:2]]
    ended = replace(runs[0], status=RunStatus.SUCCEEDED, finished_at=NOW)
    assert await store.runs.apply(RunChange(ended))
    assert list(await store.schedules.list_live_runs(schedule.schedule_id)) == [runs[1].run_id]


async def test_schedules_are_listed_counted_and_deleted(store: SqlStore) -> None:
    """By owner and by workflow, newest first; an owner has no more than allowed."""
    made = [await _schedule(store), await _schedule(store, owner_id=OTHER), await _schedule(store)]
    assert (await store.schedules.list(None, None, PAGE)).items == tuple(made[::-1])
    assert (await store.schedules.list(OWNER, None, PAGE)).items == (made[2], made[0])
    assert (await store.schedules.list(OWNER, made[0].workflow_id, PAGE)).items == (made[0],)
    assert (await store.schedules.list(None, make_workflow_id(), PAGE)).items == ()
    one_more = replace(made[0], schedule_id=make_schedule_id())
    assert await store.schedules.insert(one_more, 2) is False
    assert await store.schedules.delete(made[0].schedule_id)
    assert not await store.schedules.delete(made[0].schedule_id)
    assert await store.schedules.insert(one_more, 2)
