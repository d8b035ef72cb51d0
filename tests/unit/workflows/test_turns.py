"""Runs of a group take turns."""

import asyncio

import pytest

from sandgate.core.errors import ExpressionError, StoreUnavailable
from sandgate.core.run import Run, RunStatus, StepStatus
from sandgate.store.sql_store import SqlStore
from tests.unit.workflows.conftest import World, child, code

ASK = {"name": "ask", "type": "approval"}
ONE = {"group": "g"}


async def _begin(world: World, count: int, limit: int = 1) -> list[Run]:
    workflow_id = await world.create(ASK, concurrency={"group": "g", "limit": limit})
    return [await world.begin(workflow_id) for _ in range(count)]


async def _statuses(world: World, runs: list[Run]) -> list[str]:
    return [(await world.find(run.run_id)).status.value for run in runs]


async def _approve(world: World, run: Run) -> None:
    await world.until_step(run, "ask", StepStatus.WAITING)
    await world.service.decide(world.user, run.run_id, "ask", approved=True, comment="")


async def test_as_many_run_as_may_and_the_rest_follows_in_order(world: World) -> None:
    """Each that ends lets in the one that has waited longest, at once."""
    runs = await _begin(world, 4, limit=2)
    await world.until_run(runs[1].run_id, RunStatus.WAITING)
    assert await _statuses(world, runs) == ["waiting", "waiting", "pending", "pending"]
    assert (await world.find(runs[2].run_id)).started_at is None
    await _approve(world, runs[1])
    await world.until_run(runs[2].run_id, RunStatus.WAITING)
    assert await _statuses(world, runs) == ["waiting", "succeeded", "waiting", "pending"]
    for run in (runs[0], runs[2], runs[3]):
        await _approve(world, run)
    assert await _statuses(world, runs) == ["succeeded"] * 4


async def test_a_run_that_waits_is_cancelled_at_once(world: World) -> None:
    """Nothing of it ever begins, what tidies up neither, and nobody waits behind it."""
    workflow_id = await world.create(ASK, concurrency=ONE, **{"finally": [code("tidy")]})
    runs = [await world.begin(workflow_id) for _ in range(3)]
    ended = await world.service.cancel(world.user, runs[1].run_id)
    assert (ended.status, ended.started_at) == (RunStatus.CANCELLED, None)
    assert (await world.step(ended, "tidy")).status is StepStatus.SKIPPED
    await _approve(world, runs[0])
    await world.until_run(runs[2].run_id, RunStatus.WAITING)


async def test_the_time_limit_counts_from_the_start(world: World) -> None:
    """However long a run waits for its turn."""
    workflow_id = await world.create(ASK, concurrency=ONE, timeout=10)
    first, second = [await world.begin(workflow_id) for _ in range(2)]
    world.pass_time(8)
    await _approve(world, first)
    entered = await world.until_run(second.run_id, RunStatus.WAITING)
    world.pass_time(8)
    await asyncio.sleep(0)
    assert (await world.find(second.run_id)).status is RunStatus.WAITING
    assert entered.deadline_at is not None
    assert entered.started_at is not None
    assert (entered.deadline_at - entered.started_at).total_seconds() == 10
    world.pass_time(3)
    assert (await world.until_run(second.run_id)).status is RunStatus.TIMED_OUT


async def test_groups_are_told_apart_by_inputs(world: World) -> None:
    """Runs of one value take turns, those of another do not wait for them; a group without a value is refused."""
    day = {"day": {"type": "string"}}
    workflow_id = await world.create(ASK, concurrency={"group": "r-${{ inputs.day }}"}, inputs=day)
    runs = [await world.begin(workflow_id, day=day) for day in ("mon", "tue", "mon")]
    await world.until_run(runs[1].run_id, RunStatus.WAITING)
    assert await _statuses(world, runs) == ["waiting", "waiting", "pending"]
    assert [run.slot_group for run in runs] == ["r-mon", "r-tue", "r-mon"]
    with pytest.raises(ExpressionError):
        await world.begin(workflow_id)


async def test_a_run_does_not_wait_for_the_one_that_waits_for_it(world: World) -> None:
    """What it starts in its own group belongs to its turn, however far below."""
    lowest = await world.create(code("a"), concurrency=ONE)
    middle = await world.create(child("low", lowest), concurrency={"group": "other"})
    run = await world.run(child("mid", middle), concurrency=ONE)
    assert run.status is RunStatus.SUCCEEDED


async def test_turns_outlive_a_crash(world: World) -> None:
    """Who was in stays in, who waited waits, and the next one follows."""
    runs = await _begin(world, 3)
    await world.until_run(runs[0].run_id, RunStatus.WAITING)
    again = await world.crash()
    await again.until(lambda: again.engine.live_count == 3)
    assert await _statuses(again, runs) == ["waiting", "pending", "pending"]
    for run in runs:
        await _approve(again, run)
    assert await _statuses(again, runs) == ["succeeded"] * 3
    await again.stop()


async def test_another_process_is_heard_of_by_looking(store: SqlStore, world: World) -> None:
    """A turn that ends in one process is taken in another when it looks at the time."""
    workflow_id = await world.create(ASK, concurrency=ONE)
    other = await World(store, clock=world.clock, user=world.user, owner="two").start()
    first, second = await world.begin(workflow_id), await other.begin(workflow_id)
    await world.until_run(first.run_id, RunStatus.WAITING)
    await _approve(world, first)
    assert (await world.find(second.run_id)).status is RunStatus.PENDING
    other.pass_time(1)
    await other.until_run(second.run_id, RunStatus.WAITING)
    await other.stop()


async def test_a_database_that_is_away_only_delays_a_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for again."""
    runs, enter = world.store.runs, world.store.runs.enter

    async def away(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(runs, "enter", away)
    (run,) = await _begin(world, 1)
    monkeypatch.setattr(runs, "enter", enter)
    world.pass_time(1)
    await world.until_run(run.run_id, RunStatus.WAITING)
