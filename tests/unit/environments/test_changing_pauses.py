"""When environments are paused by themselves is changed while they live."""

import asyncio
from datetime import timedelta

import pytest

from sandgate.core.environment import Environment, EnvironmentChange
from sandgate.core.errors import PauseUnavailable, StoreUnavailable
from sandgate.core.states import EnvironmentStatus, OnTimeout
from tests.unit.environments.conftest import World
from tests.unit.environments.pausing import make, stands_still


async def test_what_becomes_of_it_is_changed(world: World) -> None:
    """At the end of its lifetime; the wall of its sandbox is out of the way while it may be paused, and only then."""
    environment_id = (await make(world, timeout_s=60)).environment_id
    world.clock.advance(20)
    pause, delete = (EnvironmentChange(on_timeout=each) for each in (OnTimeout.PAUSE, OnTimeout.DELETE))
    row = await world.service.update(world.user, environment_id, pause)
    assert row == await world.store.environments.find(environment_id)
    assert row.expires_at == world.clock.now() + timedelta(seconds=40)
    sandbox = world.runtime.sandboxes[environment_id]
    assert sandbox.lifetime_s > 40 + world.settings.max_paused_s
    world.clock.advance(41)
    world.service.end_expired()
    await world.until_status(environment_id, EnvironmentStatus.PAUSED)
    # Of one that is paused nothing is changed before it goes on.
    await world.service.update(world.user, environment_id, delete)
    assert sandbox.lifetime_s > world.settings.max_paused_s
    await world.service.resume(world.user, environment_id)
    assert sandbox.lifetime_s == 60
    await world.service.update(world.user, environment_id, pause)
    world.clock.advance(50)
    await world.service.update(world.user, environment_id, delete)
    assert sandbox.lifetime_s == 10
    world.clock.advance(11)
    world.service.end_expired()
    await world.until_status(environment_id, EnvironmentStatus.EXPIRED)


async def test_the_wall_stays_away_until_the_change_is_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is still to be paused at its end must not be ended by it."""

    async def refuse(_row: Environment) -> bool:
        raise StoreUnavailable("away")

    environment_id = (await make(world, on_timeout="pause")).environment_id
    monkeypatch.setattr(world.store.environments, "update_details", refuse)
    change = EnvironmentChange(on_timeout=OnTimeout.DELETE, timeout_s=30)
    with pytest.raises(StoreUnavailable):
        await world.service.update(world.user, environment_id, change)
    assert world.runtime.sandboxes[environment_id].lifetime_s > world.settings.max_paused_s
    assert (await world.service.get(world.user, environment_id)).on_timeout is OnTimeout.PAUSE


async def test_how_long_it_may_be_unused_is_changed(world: World) -> None:
    """Counted from the change; 0 is never."""
    environment_id = (await make(world, timeout_s=1000)).environment_id

    async def pass_time(seconds: float) -> None:
        world.clock.advance(seconds)
        world.service.end_expired()
        await asyncio.sleep(0)

    async def goes_on_for(seconds: float) -> bool:
        await pass_time(seconds)
        return not stands_still(world, environment_id)

    async def change(idle_s: int) -> Environment:
        return await world.service.update(world.user, environment_id, EnvironmentChange(idle_timeout_s=idle_s))

    assert await goes_on_for(100)
    row = await change(10)
    assert row == await world.store.environments.find(environment_id)
    assert await goes_on_for(9)
    await change(20)
    assert await goes_on_for(19)
    assert (await change(0)).idle_timeout_s is None
    assert await goes_on_for(100)
    await change(10)
    await pass_time(11)
    await world.until_status(environment_id, EnvironmentStatus.PAUSED)
    await change(30)
    await world.service.resume(world.user, environment_id)
    assert await goes_on_for(29)
    await pass_time(2)
    await world.until_status(environment_id, EnvironmentStatus.PAUSED)


async def test_what_cannot_be_paused_is_not_told_to_be(world: World) -> None:
    """Whatever else was to be changed with it stays as it was."""
    environment_id = (await make(world)).environment_id
    world.runtime.pausable = False
    for change in (EnvironmentChange("n", on_timeout=OnTimeout.PAUSE), EnvironmentChange("n", idle_timeout_s=1)):
        with pytest.raises(PauseUnavailable):
            await world.service.update(world.user, environment_id, change)
    harmless = EnvironmentChange(on_timeout=OnTimeout.DELETE, idle_timeout_s=0)
    assert (await world.service.update(world.user, environment_id, harmless)).name == "e"
