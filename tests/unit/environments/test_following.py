"""Executions whose events are told while they run."""

import asyncio

import pytest

from sandgate.config.settings import Settings
from sandgate.core.errors import ExecutionNotFound, ExecutionQuotaExceeded, StoreUnavailable, TooManyExecutions
from sandgate.core.execution import Execution, ExecutionRequest, StepData, Surroundings, Termination
from sandgate.core.ids import EnvironmentId, ExecutionId
from sandgate.core.states import ExecutionStatus
from sandgate.environments.following import Events, ExecutionEvent
from sandgate.environments.journal import Offsets
from sandgate.store.sql_store import SqlStore
from tests.unit.environments.conftest import World, make_principal

LOOP = "print('begun')\nwhile True: pass"


async def _stream(world: World, environment_id: EnvironmentId, code: str, *, detach: bool = False) -> Events:
    return await world.service.stream_execution(world.user, environment_id, code, None, None, detach=detach)


async def _all(events: Events) -> list[ExecutionEvent]:
    found: list[ExecutionEvent] = []
    async with asyncio.timeout(30):
        async for batch in events:
            found += batch
    await events.aclose()
    return found


def _shown(events: list[ExecutionEvent]) -> list[tuple[str, str, str]]:
    return [(event.position, event.kind, event.text) for event in events]


async def _until_output(events: Events) -> ExecutionId:
    """Read up to the first output; the id of the execution."""
    (begun,) = await anext(events)
    assert (await anext(events))[0].kind == "stdout"
    assert begun.execution is not None
    return begun.execution.execution_id


async def test_events_from_the_beginning_to_the_end(world: World) -> None:
    """The last one has the record, which is durable by then."""
    environment_id = await world.create_running()
    events = await _all(await _stream(world, environment_id, "print('a')\nprint('b', file=sys.stderr)\nsys.exit(3)"))
    assert [event.kind for event in events] == ["started", "stdout", "stderr", "finished"]
    assert [event.position for event in events] == ["0.0", "2.0", events[2].position, events[2].position]
    record = events[-1].execution
    assert record is not None
    assert (record.status, record.exit_code) == (ExecutionStatus.FAILED, 3)
    assert await world.store.executions.find(record.execution_id) == record
    assert world.service.running_count == 0


async def test_a_client_that_goes_away_cancels(world: World) -> None:
    """Before the first event was asked for, or later."""
    environment_id = await world.create_running()
    unread = await _stream(world, environment_id, LOOP)
    await unread.aclose()
    read = await _stream(world, environment_id, LOOP)
    execution_id = await _until_output(read)
    await read.aclose()
    await world.until(lambda: world.service.running_count == 0)
    record = await world.service.get_execution(world.user, environment_id, execution_id)
    assert record.status is ExecutionStatus.CANCELLED


async def test_a_detached_one_goes_on_and_is_followed(world: World) -> None:
    """From any position; what was there before comes first, then what happens."""
    environment_id = await world.create_running()
    stream = await _stream(world, environment_id, LOOP, detach=True)
    execution_id = await _until_output(stream)
    await stream.aclose()
    assert world.service.running_count == 1
    follow = world.service.follow_execution
    whole = asyncio.ensure_future(_all(await follow(world.user, environment_id, execution_id, None)))
    rest = asyncio.ensure_future(
        _all(await follow(world.user, environment_id, execution_id, Offsets({"stdout": 3, "stderr": 0})))
    )
    await asyncio.sleep(0)
    await world.service.cancel_execution(world.user, environment_id, execution_id)
    assert _shown(await whole) == [("0.0", "started", ""), ("6.0", "stdout", "begun\n"), ("6.0", "finished", "")]
    assert _shown(await rest) == [("6.0", "stdout", "un\n"), ("6.0", "finished", "")]


async def test_one_that_was_begun_without_a_stream(world: World) -> None:
    """Its record is there before the answer, and its events when it has ended."""
    environment_id = await world.create_running()
    code = "print('begun')\ntime.sleep(20)"
    row = await world.service.begin_execution(world.user, environment_id, code, None, None)
    assert (await world.store.executions.find(row.execution_id)) == row
    assert row.status is ExecutionStatus.RUNNING
    live = await world.service.follow_execution(world.user, environment_id, row.execution_id, None)
    world.runtime.wake()
    assert [event.kind for event in await _all(live)] == ["started", "stdout", "finished"]
    again = await world.service.follow_execution(world.user, environment_id, row.execution_id, None)
    assert [event.kind for event in await _all(again)] == ["started", "stdout", "finished"]


async def test_one_that_somebody_else_waits_for_is_followed(world: World) -> None:
    """While it runs, without making anything of it slower for whom it was asked."""
    environment_id = await world.create_running()
    task = await world.start_execution(environment_id, LOOP)
    (execution_id,) = [execution_id for live in world.service._lifecycle.all() for execution_id in live.running]
    events = await world.service.follow_execution(world.user, environment_id, execution_id, None)
    assert await _until_output(events) == execution_id
    await events.aclose()
    assert not task.done()
    task.cancel()


async def test_one_that_has_ended_is_followed_while_it_is_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the database takes: who comes meanwhile is told all of it, and that it has ended."""
    environment_id = await world.create_running()
    writing, may_write, finish = asyncio.Event(), asyncio.Event(), world.store.executions.finish

    async def wait(row: Execution) -> None:
        writing.set()
        await may_write.wait()
        await finish(row)

    monkeypatch.setattr(world.store.executions, "finish", wait)
    asked = asyncio.ensure_future(world.service.execute(world.user, environment_id, "print('a')", None))
    await writing.wait()
    (execution_id,) = [execution_id for live in world.service._lifecycle.all() for execution_id in live.running]
    told = asyncio.ensure_future(
        _all(await world.service.follow_execution(world.user, environment_id, execution_id, None))
    )
    await asyncio.sleep(0)
    may_write.set()
    assert [event.kind for event in await told] == ["started", "stdout", "finished"]
    assert (await asked).stdout == "a\n"


async def test_the_output_of_a_step_is_told_masked(world: World) -> None:
    """Only what is recorded of it, when it has ended."""
    environment_id = await world.create_running()
    code = f"print('secret')\n{LOOP}"

    def mask(ended: Termination) -> Termination:
        return Termination(
            ended.status, None, b"***", b"", stdout_truncated=False, stderr_truncated=False,
            error=None, duration_s=0.0, usage=ended.usage,
        )  # fmt: skip

    step = asyncio.ensure_future(
        world.service.execute_step(
            world.user.user_id, environment_id, ExecutionRequest(code, 30, StepData({}, {})), mask
        )
    )
    await world.until(lambda: world.service.running_count == 1)
    (execution_id,) = [execution_id for live in world.service._lifecycle.all() for execution_id in live.running]
    events = await world.service.follow_execution(world.user, environment_id, execution_id, None)
    told = asyncio.ensure_future(_all(events))
    await asyncio.sleep(0)
    await world.service.cancel_execution(world.user, environment_id, execution_id)
    assert (await step).status is ExecutionStatus.CANCELLED
    assert [event.text for event in await told if event.kind == "stdout"] == ["***"]


async def test_what_cannot_be_noted_is_not_begun(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A detached execution that was acknowledged is on disk; one that is not is killed."""
    environment_id = await world.create_running()

    async def fail(_row: Execution) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(world.store.executions, "insert_running", fail)
    with pytest.raises(StoreUnavailable):
        await world.service.begin_execution(world.user, environment_id, LOOP, None, None)
    await world.until(lambda: world.service.running_count == 0)


async def test_unknown_executions_have_no_events(world: World) -> None:
    """As they cannot be got."""
    environment_id = await world.create_running()
    with pytest.raises(ExecutionNotFound):
        await world.service.follow_execution(world.user, environment_id, ExecutionId("exec-unknown"), None)


async def test_it_counts_for_its_user_until_it_has_ended(world: World) -> None:
    """As long as it runs, whether or not somebody listens, and no longer."""
    environment_id = await world.create_running()
    row = await world.service.begin_execution(world.user, environment_id, LOOP, None, None)
    assert (await world.service.quotas.report(world.user)).use.executions_at_once == 1
    await world.service.cancel_execution(world.user, environment_id, row.execution_id)
    assert (await world.service.quotas.report(world.user)).use.executions_at_once == 0


async def test_what_all_of_a_user_s_hold_is_bounded(store: SqlStore) -> None:
    """Many that wait, each as long as it may be, would fill the server's memory."""
    world = World(store, Settings(drain_grace_s=0.02, max_execution_bytes_at_once_per_user=len(LOOP) + 100))
    await world.service.start()
    environment_id = await world.create_running()
    stream = await _stream(world, environment_id, LOOP)
    with pytest.raises(ExecutionQuotaExceeded) as caught:
        await world.service.begin_execution(world.user, environment_id, "#" * 101, None, None)
    assert caught.value.details == {"limit": len(LOOP) + 100, "used": len(LOOP), "scope": "bytes_at_once"}
    around = Surroundings(stdin="x" * 100)
    with pytest.raises(ExecutionQuotaExceeded):
        await world.service.execute(world.user, environment_id, "#", None, around)
    assert (await world.service.execute(world.user, environment_id, "#" * 100, None)).exit_code == 0
    await stream.aclose()
    await world.until(lambda: world.service.quotas.use.at_once(world.user.user_id) == 0)
    assert (await world.service.execute(world.user, environment_id, "#", None, around)).exit_code == 0
    await world.service.stop()


async def test_what_all_users_run_at_once_is_bounded(store: SqlStore) -> None:
    """Whoever comes when the server is full is told so, and is served when one has ended."""
    world = World(store, Settings(drain_grace_s=0.02, max_executions_at_once=2))
    await world.service.start()
    other = make_principal()
    environment_id, foreign_id = await world.create_running(), await world.create_running(other)
    streams = [await _stream(world, environment_id, LOOP) for _each in range(2)]
    for _twice in range(2):
        with pytest.raises(TooManyExecutions) as caught:
            await world.service.execute(other, foreign_id, "pass", None)
        assert caught.value.details == {"limit": 2, "used": 2, "scope": "server"}
    assert world.service.quotas.use.at_once(other.user_id) == 0
    await streams[0].aclose()
    await world.until(lambda: world.service.quotas.use.at_once(world.user.user_id) == 1)
    assert (await world.service.execute(other, foreign_id, "pass", None)).exit_code == 0
    await streams[1].aclose()
    await world.service.stop()
