"""The parts that the use cases are made of: deadlines, quota, tasks, the reaper, the stand-in runtime."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.config.settings import Settings
from sandgate.core.clock import ManualClock, SystemClock
from sandgate.core.environment import Environment
from sandgate.core.errors import MemoryQuotaExceeded, TooManyEnvironments, TooManyLiveTemplates
from sandgate.core.execution import Execution
from sandgate.core.idempotency import KeyClaim
from sandgate.core.ids import UserId, make_environment_id, make_execution_id
from sandgate.core.limits import Limits
from sandgate.core.page import PageRequest
from sandgate.core.quota import EnvironmentsHeld, UserQuota
from sandgate.core.run import RunStatus
from sandgate.core.states import ExecutionStatus
from sandgate.environments.deadlines import Deadlines
from sandgate.environments.quota import Quota
from sandgate.environments.reaper import Reaper
from sandgate.environments.tasks import TaskOwner
from sandgate.store.base import RunChange
from tests.contract.store.records import a_run, a_step, a_workflow, an_environment
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
    now = clock.monotonic()
    deadlines.set("later", now + 0.004)
    deadlines.set("soon", now + 0.002)
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


def _row(owner: str, template: str = "python", memory_bytes: int = 10) -> Environment:
    """One that is about to be."""
    limits = Limits(memory_bytes=memory_bytes, disk_bytes=0)
    return an_environment(owner_id=UserId(owner), template=template, limits=limits)


@given(st.lists(st.tuples(st.sampled_from(["a@1", "a@2", "b@1", "python"]), st.booleans()), max_size=60))
def test_a_user_has_so_many_built_templates_live(steps: list[tuple[str, bool]]) -> None:
    """However many environments are of each; the server's own are not counted, nor others' templates."""
    quota, allowed = Quota(Settings(max_live_templates_per_user=2)), UserQuota()
    quota.take(_row("other", "c@1"), allowed)
    # A sandbox of a step is counted with environments.
    quota.count_template(UserId("other"), "d@1")
    quota.give_back_template(UserId("other"), "d@1")
    live: Counter[str] = Counter()
    for template, takes in steps:
        if takes:
            fits = template == "python" or template in live or len(live.keys() - {"python"}) < 2
            try:
                quota.take(_row("me", template), allowed)
            except TooManyLiveTemplates:
                assert not fits
            else:
                assert fits
                live[template] += 1
        elif live[template]:
            quota.give_back(_row("me", template))
            live[template] -= 1
        live = +live
        assert quota.of(UserId("me")).count == live.total()


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
                quota.take(_row(name), by_memory if name == "c" else by_count)
            except (TooManyEnvironments, MemoryQuotaExceeded):
                assert not fits
            else:
                assert fits
                held[name] += 1
        elif held[name]:
            quota.give_back(_row(name))
            held[name] -= 1
        assert quota.total == sum(held.values())
        assert quota.of(UserId(name)) == EnvironmentsHeld(held[name], 10 * held[name])


def test_what_a_user_has_elsewhere_is_counted_for_the_user() -> None:
    """And for nobody else, and not for the server."""
    quota, row = Quota(Settings(max_environments=2)), _row("a")
    allowed, elsewhere = UserQuota(environments=9, memory_bytes=30), EnvironmentsHeld(8, 15)
    for other in (EnvironmentsHeld(9, 0), EnvironmentsHeld(0, 21)):
        with pytest.raises((TooManyEnvironments, MemoryQuotaExceeded)):
            quota.take(row, allowed, other)
    quota.take(row, allowed, elsewhere)
    with pytest.raises(TooManyEnvironments) as refusal:
        quota.take(_row("a", memory_bytes=1), allowed, elsewhere)
    assert refusal.value.details == {"limit": 9, "used": 9, "scope": "user"}
    quota.take(_row("b", memory_bytes=30), allowed)
    with pytest.raises(TooManyEnvironments) as refusal:
        quota.take(_row("c", memory_bytes=1), allowed)
    assert refusal.value.details["scope"] == "server"


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


async def test_the_reaper_bounds_the_output_that_a_user_keeps(world: World) -> None:
    """In as many small writes as it takes; what is newest stays."""
    settings = Settings(max_kept_output_bytes_per_user=1024**2)
    now, environment_id = world.clock.now(), make_environment_id()
    made = [
        Execution(
            make_execution_id(), environment_id, world.user.user_id, ExecutionStatus.COMPLETED, 30.0, now,
            finished_at=now, stdout="x" * 200_000,
        )
        for _ in range(12)
    ]  # fmt: skip
    for end in made:
        await world.store.executions.finish(end)
    await Reaper(world.store, world.clock, settings, batch=2).sweep()
    left = await world.store.executions.list(environment_id, PageRequest())
    assert list(left.items) == made[:-6:-1]


async def test_the_reaper_bounds_the_runs_that_a_user_keeps(world: World) -> None:
    """The oldest go, in small batches, with versions that nobody needs then; what has not ended stays, however much."""
    workflow, now = a_workflow(), world.clock.now()
    await world.store.workflows.insert(workflow)
    made = []
    for version in range(1, 11):
        run = a_run(workflow.workflow_id, workflow_version=version)
        assert await world.store.runs.insert(RunChange(run))
        if version > 1:
            run = replace(run, status=RunStatus.FAILED, finished_at=now)
            steps = [a_step(run, stdout="x" * 200_000), a_step(run, step="b", stdout="x" * 50_000)]
            assert await world.store.runs.apply(RunChange(run, steps))
        made.append(run)
        workflow = replace(workflow, version=version + 1)
        assert await world.store.workflows.replace(workflow)
    await Reaper(world.store, world.clock, Settings(max_kept_run_bytes_per_user=1024**2), batch=40).sweep()
    left = [run for run in made if await world.store.runs.find(run.run_id)]
    assert left == [made[0], *made[-4:]]
    needed = [n for n in range(1, 12) if await world.store.workflows.find_definition(workflow.workflow_id, n)]
    assert needed == [1, 7, 8, 9, 10, 11]


async def test_the_reaper_looks_at_everybody_once_in_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """In between at those of whom a run has ended, and for versions only when runs went."""
    looked: list[bool] = []
    pruned: list[int] = []
    retention = world.store.retention
    find_over, prune_versions = retention.find_over, retention.prune_versions

    async def note_look(most_bytes: int, since: datetime | None = None) -> Any:
        looked.append(since is None)
        return await find_over(most_bytes, since)

    async def note_prune(most: int) -> int:
        pruned.append(len(looked))
        return await prune_versions(most)

    monkeypatch.setattr(retention, "find_over", note_look)
    monkeypatch.setattr(retention, "prune_versions", note_prune)
    reaper = Reaper(world.store, world.clock, world.settings)
    for _round in range(3):
        await reaper.sweep()
    workflow = a_workflow()
    await world.store.workflows.insert(workflow)
    long_ago = world.clock.now() - timedelta(seconds=world.settings.run_retention_s + 1)
    run = a_run(workflow.workflow_id, status=RunStatus.SUCCEEDED, finished_at=long_ago)
    assert await world.store.runs.insert(RunChange(run))
    await reaper.sweep()
    assert await world.store.runs.find(run.run_id) is None
    assert looked == [True, False, False, False]
    assert pruned == [0, 3]


async def test_the_reaper_goes_on_while_the_database_is_away(world: World) -> None:
    """A sweep that fails is tried again next time."""
    await world.store.close()
    reaper = Reaper(world.store, world.clock, world.settings)
    sweeping = asyncio.ensure_future(reaper.run(interval_s=0.001))
    done, _ = await asyncio.wait({sweeping}, timeout=0.01)
    assert not done
    sweeping.cancel()
