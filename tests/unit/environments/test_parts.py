"""The parts that the use cases are made of: deadlines, quota, tasks, the reaper, the stand-in runtime."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.config.settings import Settings
from sandgate.core.clock import ManualClock, SystemClock
from sandgate.core.errors import MemoryQuotaExceeded, TooManyEnvironments
from sandgate.core.execution import Execution
from sandgate.core.idempotency import KeyClaim
from sandgate.core.ids import UserId, make_environment_id, make_execution_id
from sandgate.core.page import PageRequest
from sandgate.core.quota import UserQuota
from sandgate.core.states import ExecutionStatus
from sandgate.environments.deadlines import Deadlines
from sandgate.environments.quota import Quota
from sandgate.environments.reaper import Reaper
from sandgate.environments.tasks import TaskOwner
from tests.unit.environments.conftest import World


async def test_deadlines_come_up_once_and_in_order() -> None:
    """What is discarded or put off does not come up at its old time."""
    clock, due = ManualClock(), list[str]()
    deadlines: Deadlines[str] = Deadlines(clock, due.append)
    start = clock.monotonic()
    for key, delay in {"c": 3, "a": 1, "b": 2, "gone": 1, "late": 1}.items():
        deadlines.set(key, start + delay)
    deadlines.discard("gone")
    deadlines.set("late", start + 10)
    deadlines.check()
    assert not due
    clock.advance(3)
    deadlines.check()
    deadlines.check()
    assert due == ["a", "b", "c"]
    clock.advance(7)
    deadlines.check()
    assert due == ["a", "b", "c", "late"]
    deadlines.close()


async def test_deadlines_come_up_by_themselves() -> None:
    """A timer of the event loop calls, the nearest deadline first."""
    due: asyncio.Queue[str] = asyncio.Queue()
    clock = SystemClock()
    deadlines: Deadlines[str] = Deadlines(clock, due.put_nowait)
    deadlines.set("later", clock.monotonic() + 0.004)
    deadlines.set("soon", clock.monotonic() + 0.002)
    assert [await due.get(), await due.get()] == ["soon", "later"]


async def test_deadlines_that_are_put_off_for_ever_are_not_kept() -> None:
    """Memory is bounded by the keys, not by how often they change."""
    clock = ManualClock()
    deadlines: Deadlines[int] = Deadlines(clock, lambda _: None)
    deadlines.set(0, clock.monotonic() + 1)
    for delay in range(1000):
        deadlines.set(1, clock.monotonic() + 2 + delay)
    assert len(deadlines._heap) <= 70
    deadlines.close()


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.booleans()), max_size=60))
def test_a_quota_never_goes_beyond_its_limits(steps: list[tuple[str, bool]]) -> None:
    """Whatever is taken and given back, the counts are those of a simple model."""
    quota = Quota(Settings(max_environments=5))
    by_count, by_memory = UserQuota(environments=3), UserQuota(environments=3, memory_bytes=25)
    held: dict[str, int] = dict.fromkeys("abc", 0)
    for name, takes in steps:
        if takes:
            fits = held[name] < (2 if name == "c" else 3) and sum(held.values()) < 5
            try:
                quota.take(UserId(name), 10, by_memory if name == "c" else by_count)
            except (TooManyEnvironments, MemoryQuotaExceeded):
                assert not fits
            else:
                assert fits
                held[name] += 1
        elif held[name]:
            quota.give_back(UserId(name), 10)
            held[name] -= 1
        assert quota.total == sum(held.values())
        assert quota.held_by(UserId(name)) == held[name]
        assert quota.memory_of(UserId(name)) == 10 * held[name]


async def test_a_background_task_that_fails_is_told() -> None:
    """A bug does not disappear in a task that nobody awaits."""
    faults: list[BaseException] = []
    owner = TaskOwner(faults.append)

    async def fail() -> None:
        raise KeyError("bug")

    owner.spawn(fail(), "failing")
    await owner.settle(1)
    assert [type(fault) for fault in faults] == [KeyError]
    assert len(owner) == 0


async def test_what_has_to_be_finished_is_finished_without_its_caller() -> None:
    """Cancelling the caller leaves the work running, and what it raises goes to the caller alone."""
    faults: list[BaseException] = []
    owner, gate, done = TaskOwner(faults.append), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await gate.wait()
        done.set()

    async def fail() -> None:
        raise KeyError("told")

    caller = asyncio.ensure_future(owner.finish(work(), "work"))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    gate.set()
    await done.wait()
    with pytest.raises(KeyError):
        await owner.finish(fail(), "fail")
    await owner.settle(1)
    assert not faults


async def test_settling_ends_what_does_not_end_by_itself() -> None:
    """Tasks get a while, then they are cancelled; those that they start are waited for too."""
    owner = TaskOwner()
    ended: list[str] = []

    async def start_another() -> None:
        owner.spawn(note("second"), "second")

    async def note(name: str) -> None:
        ended.append(name)

    stuck = owner.spawn(asyncio.Event().wait(), "stuck")
    owner.spawn(start_another(), "first")
    await owner.settle(0.01)
    assert ended == ["second"]
    assert stuck.cancelled()


async def test_the_reaper_keeps_what_is_young(world: World) -> None:
    """Old executions go in small batches; young ones and running ones stay."""
    now = world.clock.now()
    old = now - timedelta(seconds=world.settings.execution_retention_s + 1)
    environment_id = make_environment_id()
    ended = Execution(
        make_execution_id(), environment_id, world.user.user_id, ExecutionStatus.COMPLETED, 30.0, old, finished_at=old
    )
    await asyncio.gather(
        *(world.store.executions.finish(replace(ended, execution_id=make_execution_id())) for _ in range(7))
    )
    young = replace(ended, execution_id=make_execution_id(), finished_at=now)
    running = replace(ended, execution_id=make_execution_id(), status=ExecutionStatus.RUNNING, finished_at=None)
    await world.store.executions.finish(young)
    await world.store.executions.insert_running(running)
    await world.store.credentials.revoke_token("token", old)
    claim = KeyClaim(world.user.user_id, "k", "claim-1", "server")
    await world.store.idempotency.claim(claim, b"d", at=old, fresh_after=old)
    reaper = Reaper(world.store, world.clock, world.settings, batch=3)
    assert await reaper.sweep() == 7 + 1 + 1
    left = await world.store.executions.list(environment_id, PageRequest())
    assert {row.execution_id for row in left.items} == {young.execution_id, running.execution_id}


async def test_the_reaper_goes_on_while_the_database_is_away(world: World) -> None:
    """A sweep that fails is tried again next time."""
    await world.store.close()
    reaper = Reaper(world.store, world.clock, world.settings)
    sweeping = asyncio.ensure_future(reaper.run(interval_s=0.001))
    done, _ = await asyncio.wait({sweeping}, timeout=0.01)
    assert not done
    sweeping.cancel()
