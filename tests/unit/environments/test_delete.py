"""Deleting, in every state and in every crowd."""

import asyncio

import pytest

from sandgate.core.environment import EnvironmentChange
from sandgate.core.errors import EnvironmentNotFound, EnvironmentNotRunning, Forbidden
from sandgate.core.execution import Execution
from sandgate.core.ids import EnvironmentId, make_execution_id
from sandgate.core.principal import Principal, Role
from sandgate.core.states import EnvironmentStatus, ExecutionStatus
from tests.unit.environments.conftest import World, make_principal


async def test_deleting_ends_the_sandbox_and_hides_the_row(world: World) -> None:
    """When the answer leaves nothing runs any more, and the environment is not found."""
    environment_id = await world.create_running()
    row = await world.service.delete(world.user, environment_id)
    assert row.status is EnvironmentStatus.TERMINATED
    assert environment_id not in world.runtime.sandboxes
    with pytest.raises(EnvironmentNotFound):
        await world.service.get(world.user, environment_id)
    with pytest.raises(EnvironmentNotFound):
        await world.service.delete(world.user, environment_id)
    assert world.service.live_count == 0


async def test_deleting_cancels_what_runs(world: World) -> None:
    """The execution is answered as cancelled, and recorded before the delete is answered."""
    environment_id = await world.create_running()
    running = await world.start_execution(environment_id, "while True: pass")
    await world.service.delete(world.user, environment_id)
    assert (await running).status is ExecutionStatus.CANCELLED
    recorded = await world.store.executions.find((await running).execution_id)
    assert recorded is not None
    assert recorded.status is ExecutionStatus.CANCELLED


async def test_two_deletes_at_once_both_come_to_an_end(world: World) -> None:
    """Neither hangs, and the sandbox is destroyed once."""
    environment_id = await world.create_running()
    rows = await asyncio.gather(*(world.service.delete(world.user, environment_id) for _ in range(2)))
    assert [row.status for row in rows] == [EnvironmentStatus.TERMINATED] * 2


async def test_deleting_while_the_sandbox_is_being_made(world: World) -> None:
    """The delete waits for the runtime's answer, and leaves no sandbox."""
    world.runtime.gate = asyncio.Event()
    row = await world.create()
    await world.until(lambda: world.runtime.making == 1)
    deleting = asyncio.ensure_future(world.service.delete(world.user, row.environment_id))
    early = asyncio.ensure_future(world.service.execute(world.user, row.environment_id, "pass", None))
    await asyncio.sleep(0)
    world.runtime.gate.set()
    assert (await deleting).status is EnvironmentStatus.TERMINATED
    assert not world.runtime.sandboxes
    with pytest.raises(EnvironmentNotRunning):
        await early


async def test_deleting_before_the_runtime_was_asked(world: World) -> None:
    """What waits for its turn to be made is deleted at once, without the runtime."""
    world.runtime.gate = asyncio.Event()
    rows = [await world.create() for _ in range(9)]
    await world.until(lambda: world.runtime.making == 8)
    await world.service.delete(world.user, rows[-1].environment_id)
    assert world.runtime.making == 8
    world.runtime.gate.set()
    await world.until(lambda: len(world.runtime.made) == 8)
    assert rows[-1].environment_id not in {spec.environment_id for spec in world.runtime.made}


@pytest.mark.parametrize("reason", ["expired", "it broke"])
async def test_what_has_ended_by_itself_can_be_deleted(world: World, reason: str) -> None:
    """An expired or failed environment is still there until its owner deletes it."""
    environment_id = await world.create_running()
    world.runtime.kill(environment_id, reason)
    await world.until(lambda: world.service.live_count == 0)
    assert (await world.service.get(world.user, environment_id)).environment_id == environment_id
    assert (await world.service.delete(world.user, environment_id)).status is EnvironmentStatus.TERMINATED
    with pytest.raises(EnvironmentNotFound):
        await world.service.get(world.user, environment_id)


async def test_deleting_while_it_expires(world: World) -> None:
    """The end that has begun is waited for, then the row is hidden."""
    environment_id = await world.create_running(timeout_s=1)
    world.clock.advance(2)
    world.service.end_expired()
    assert (await world.service.delete(world.user, environment_id)).status is EnvironmentStatus.TERMINATED
    with pytest.raises(EnvironmentNotFound):
        await world.service.get(world.user, environment_id)


async def test_an_end_is_not_given_up_while_the_launcher_is_away(world: World) -> None:
    """Destroying is tried again until it works; the row says so only then."""
    environment_id = await world.create_running()
    world.runtime.unavailable = True
    deleting = asyncio.ensure_future(world.service.delete(world.user, environment_id))
    for _ in range(5):
        await asyncio.sleep(0)
    assert environment_id in world.runtime.sandboxes
    assert not deleting.done()
    world.runtime.unavailable = False
    await deleting
    assert environment_id not in world.runtime.sandboxes


async def _use_each(world: World, caller: Principal, wanted: EnvironmentId) -> list[type[BaseException] | None]:
    attempts = [
        world.service.get(caller, wanted),
        world.service.update(caller, wanted, EnvironmentChange(name="n")),
        world.service.execute(caller, wanted, "pass", None),
        world.service.cancel_execution(caller, wanted, make_execution_id()),
        world.service.delete(caller, wanted),
    ]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    return [type(result) if isinstance(result, BaseException) else None for result in results]


async def test_strangers_find_nothing(world: World) -> None:
    """What is another user's looks like what does not exist."""
    environment_id = await world.create_running()
    assert await _use_each(world, make_principal(), environment_id) == [EnvironmentNotFound] * 5


async def test_viewers_see_what_is_theirs_and_change_nothing(world: World) -> None:
    """A viewer that owns an environment, from the time when it was a user, only reads it."""
    environment_id = await world.create_running()
    viewer = Principal(world.user.user_id, "viewer", Role.VIEWER)
    assert await _use_each(world, viewer, environment_id) == [None, *[Forbidden] * 4]


async def test_admins_may_do_everything(world: World) -> None:
    """An admin deletes what somebody else made."""
    environment_id = await world.create_running()
    admin = make_principal(Role.ADMIN)
    execution = await world.service.execute(admin, environment_id, "print(1)", None)
    assert isinstance(execution, Execution)
    assert execution.owner_id == world.user.user_id
    await world.service.delete(admin, environment_id)
