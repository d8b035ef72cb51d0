"""What a process leaves to the next one, and how it stops in order."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from sandgate.core.errors import EnvironmentNotFound, EnvironmentNotRunning, ServiceDraining, StoreUnavailable
from sandgate.core.idempotency import KeyClaim
from sandgate.core.ids import EnvironmentId, make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.states import LIVE_ENVIRONMENT_STATUSES, EnvironmentStatus, ExecutionStatus
from sandgate.environments import lifecycle, service
from sandgate.sandbox.base import SandboxSpec
from sandgate.testing.fake_runtime import FakeRuntime, FakeSandbox
from tests.unit.environments.conftest import World


async def test_environments_survive_a_killed_gateway(world: World) -> None:
    """The next process finds the sandboxes and goes on with them, deadlines and quota included."""
    environment_id = await world.create_running(timeout_s=60)
    await world.restart()
    assert world.service.live_count == 1
    assert (await world.service.execute(world.user, environment_id, "print('still here')", None)).stdout
    world.clock.advance(60)
    world.service.end_expired()
    await world.until_status(environment_id, EnvironmentStatus.EXPIRED)


async def test_environments_whose_sandbox_is_gone_have_failed(world: World) -> None:
    """The reason says that the service lost it."""
    environment_id = await world.create_running()
    await world.restart(machine_survives=False)
    row = await world.until_status(environment_id, EnvironmentStatus.FAILED)
    assert row.status_reason is not None
    assert "lost its sandbox" in row.status_reason
    await world.until(lambda: world.service.live_count == 0)


async def test_environments_that_outlived_the_gateway_have_expired(world: World) -> None:
    """Whether or not the sandbox is still there, it is over."""
    kept, lost = await world.create_running(timeout_s=10), await world.create_running(timeout_s=10)
    del world.runtime.sandboxes[lost]
    world.clock.advance(11)
    await world.restart()
    await world.until_status(kept, EnvironmentStatus.EXPIRED)
    await world.until_status(lost, EnvironmentStatus.EXPIRED)
    assert not world.runtime.sandboxes


async def test_a_row_that_was_still_creating_is_adopted_as_running(world: World) -> None:
    """The process died between the sandbox and the write of its status."""
    row = await world.create()
    behind = replace(row, environment_id=make_environment_id())
    await world.store.environments.insert(behind)
    await world.runtime.create(SandboxSpec(behind.environment_id, behind.template, behind.limits, 60))
    await world.restart()
    await world.until_status(behind.environment_id, EnvironmentStatus.RUNNING)


async def test_what_nobody_knows_is_ended_at_the_start(world: World) -> None:
    """A sandbox without a live row is removed."""
    environment_id = await world.create_running()
    sandbox = world.runtime.sandboxes[environment_id]
    await world.service.delete(world.user, environment_id)
    world.runtime.sandboxes[environment_id] = sandbox
    await world.restart()
    assert not world.runtime.sandboxes


async def test_executions_of_a_killed_gateway_are_lost(world: World) -> None:
    """A row that says running is ended at the next start."""
    environment_id = await world.create_running()
    running = await world.start_execution(environment_id, "while True: pass")
    live = world.service._lifecycle.find(environment_id)
    assert live is not None
    (execution_id,) = live.running
    await world.store.executions.insert_running(live.running[execution_id].row)
    await world.restart()
    row = await world.store.executions.find(execution_id)
    assert row is not None
    assert row.status is ExecutionStatus.LOST
    running.cancel()


async def test_keys_without_an_answer_are_given_back_at_the_start(world: World) -> None:
    """The request died with the process, so that it may be sent again."""
    now = world.clock.now()
    fresh_after = now - timedelta(days=1)
    claim = KeyClaim(world.user.user_id, "key", "claim-1", "server")
    assert await world.store.idempotency.claim(claim, b"digest", at=now, fresh_after=fresh_after) is None
    await world.restart()
    assert await world.store.idempotency.claim(claim, b"digest", at=now, fresh_after=fresh_after) is None


async def test_what_others_ended_ends_here_too(world: World) -> None:
    """Taken for dead and back: environments whose rows say failed have no sandbox any more, the others stay."""
    ended, kept = [await world.create_running() for _ in range(2)]
    assert await world.store.environments.transition(
        ended, EnvironmentStatus.FAILED, expected=LIVE_ENVIRONMENT_STATUSES, at=world.clock.now(), reason="gone"
    )
    await world.service.end_buried()
    await world.until(lambda: world.service.live_count == 1)
    assert list(world.runtime.sandboxes) == [kept]
    row = await world.service.get(world.user, ended)
    assert (row.status, row.status_reason) == (EnvironmentStatus.FAILED, "gone")
    assert (await world.service.get(world.user, kept)).is_live


async def test_what_others_ended_is_looked_at_when_all_is_taken_over(world: World) -> None:
    """A server that is taken for dead while it starts ends what it is about to take over."""
    environment_id = await world.create_running()
    world.runtime = FakeRuntime(world.runtime.sandboxes)
    world.service = world.make_service()
    adopt = world.runtime.adopt

    async def adopt_late(expected: Mapping[EnvironmentId, Limits]) -> Sequence[FakeSandbox]:
        states, now = LIVE_ENVIRONMENT_STATUSES, world.clock.now()
        await world.store.environments.transition(
            environment_id, EnvironmentStatus.FAILED, expected=states, at=now, reason="gone"
        )
        return await adopt(expected)

    world.runtime.adopt = adopt_late  # type: ignore[method-assign]
    ending = asyncio.ensure_future(world.service.end_buried())
    await asyncio.sleep(0)
    await world.service.start()
    await ending
    await world.until(lambda: not world.runtime.sandboxes)


async def test_stopping_lets_short_executions_end(world: World) -> None:
    """Within the grace an execution comes to its own end."""
    environment_id = await world.create_running()
    world.settings = world.settings.model_copy(update={"drain_grace_s": 60.0})
    world.service._settings = world.settings
    running = await world.start_execution(environment_id, "time.sleep(0.01)")
    await world.service.stop()
    assert (await running).status is ExecutionStatus.COMPLETED


async def test_stopping_cancels_what_takes_too_long(world: World) -> None:
    """After the grace it is cancelled and recorded, and every environment says why it ended."""
    environment_id = await world.create_running()
    running = await world.start_execution(environment_id, "while True: pass")
    await world.service.stop()
    assert (await running).status is ExecutionStatus.CANCELLED
    row = await world.store.environments.find(environment_id)
    assert row is not None
    assert (row.status, row.status_reason) == (EnvironmentStatus.TERMINATED, "the service was stopped")
    assert not world.runtime.sandboxes


async def test_stopping_ends_what_stands_still(world: World) -> None:
    """An environment that is paused is ended like all others, and one whose service was killed is not."""
    environment_id = await world.create_running()
    await world.service.pause(world.user, environment_id)
    await world.restart()
    await world.until_status(environment_id, EnvironmentStatus.PAUSED)
    await world.until(lambda: world.service.live_count == 1)
    await world.service.stop()
    row = await world.store.environments.find(environment_id)
    assert row is not None
    assert (row.status, row.status_reason) == (EnvironmentStatus.TERMINATED, "the service was stopped")
    assert not world.runtime.sandboxes


async def test_no_new_work_while_stopping(world: World) -> None:
    """Creating and executing are refused; what runs is not disturbed."""
    environment_id = await world.create_running()
    running = await world.start_execution(environment_id, "while True: pass")
    stopping = asyncio.ensure_future(world.service.stop())
    await asyncio.sleep(0)
    with pytest.raises(ServiceDraining):
        await world.create()
    with pytest.raises(ServiceDraining):
        await world.service.execute(world.user, environment_id, "pass", None)
    assert not running.done()
    await stopping
    await running


async def test_an_environment_created_during_the_stop_does_not_outlive_it(world: World) -> None:
    """Its row was accepted just before; it ends like all others."""
    await world.service.quotas.allowed(world.user.user_id)  # Kept for a second, so that the create waits for nothing.
    creating = asyncio.ensure_future(world.create())
    await asyncio.sleep(0)
    await world.service.stop()
    row = await world.store.environments.find((await creating).environment_id)
    assert row is not None
    assert row.status is EnvironmentStatus.TERMINATED
    assert not world.runtime.sandboxes


async def test_stopping_waits_for_no_database(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is away keeps nothing running, and not the service either; the next start writes what became of it."""
    environment_id = await world.create_running()
    monkeypatch.setattr(lifecycle, "_END_ALL_WAIT_S", 0.01)
    monkeypatch.setattr(service, "_SETTLE_S", 0.01)
    with monkeypatch.context() as away:

        async def refuse(*_arguments: object, **_named: object) -> bool:
            raise StoreUnavailable("It is away")

        away.setattr(world.store.environments, "transition", refuse)
        async with asyncio.timeout(30):
            await world.service.stop()
        assert not world.runtime.sandboxes
    await world.restart()
    assert (await world.until_status(environment_id, EnvironmentStatus.FAILED)).status_reason


async def test_what_ended_with_the_service_can_be_deleted(world: World) -> None:
    """After a restart the owner sees why it ended, and hides it."""
    environment_id = await world.create_running()
    await world.service.stop()
    await world.restart()
    assert (await world.service.get(world.user, environment_id)).status_reason == "the service was stopped"
    with pytest.raises(EnvironmentNotRunning):
        await world.service.execute(world.user, environment_id, "pass", None)
    await world.service.delete(world.user, environment_id)
    with pytest.raises(EnvironmentNotFound):
        await world.service.get(world.user, environment_id)
