"""Environments that stand still, and go on."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sandgate.core.environment import Environment, EnvironmentChange
from sandgate.core.errors import (
    EnvironmentNotFound,
    EnvironmentNotRunning,
    Forbidden,
    LauncherUnavailable,
    PauseUnavailable,
    SandboxFailed,
    SandgateError,
    StoreUnavailable,
)
from sandgate.core.principal import Role
from sandgate.core.states import EnvironmentStatus, ExecutionStatus, OnTimeout
from sandgate.environments.base import NewEnvironment
from sandgate.testing.fake_runtime import FakeRuntime
from tests.unit.environments.conftest import World, make_principal
from tests.unit.environments.pausing import make, stands_still

SLEEP = "import time; time.sleep(60)"


async def test_the_next_use_resumes_it(world: World) -> None:
    """Paused it is so in its row; code, files and a request resume it; pausing and resuming twice change nothing."""
    environment_id = (await make(world)).environment_id
    paused = await world.service.pause(world.user, environment_id)
    assert (paused.status, paused.paused_at) == (EnvironmentStatus.PAUSED, world.clock.now())
    assert await world.store.environments.find(environment_id) == paused
    assert stands_still(world, environment_id)
    assert await world.service.pause(world.user, environment_id) == paused
    ran = await world.service.execute(world.user, environment_id, "print('on')", None)
    assert ran.stdout == "on\n"
    row = await world.until_status(environment_id, EnvironmentStatus.RUNNING)
    assert (row.paused_at, row.remaining_s) == (None, None)
    await world.service.pause(world.user, environment_id)
    await world.service.files.list(world.user, environment_id, ".", after="", limit=1)
    assert not stands_still(world, environment_id)
    await world.service.pause(world.user, environment_id)
    await world.service.resume(world.user, environment_id)
    resumed = await world.service.resume(world.user, environment_id)
    assert await world.store.environments.find(environment_id) == resumed
    assert resumed.status is EnvironmentStatus.RUNNING


async def test_its_lifetimestands_still(world: World) -> None:
    """What was left of it when it was paused is left when it is resumed; a change meanwhile counts from then."""
    environment_id = (await make(world, timeout_s=60)).environment_id
    world.clock.advance(40)
    await world.service.pause(world.user, environment_id)
    world.clock.advance(1000)
    world.service.end_expired()
    row = await world.service.resume(world.user, environment_id)
    assert row.expires_at == world.clock.now() + timedelta(seconds=20)
    await world.service.pause(world.user, environment_id)
    changed = await world.service.update(world.user, environment_id, EnvironmentChange(timeout_s=90))
    assert changed.status is EnvironmentStatus.PAUSED
    row = await world.service.resume(world.user, environment_id)
    assert row.expires_at == world.clock.now() + timedelta(seconds=90)
    world.clock.advance(91)
    world.service.end_expired()
    await world.until_status(environment_id, EnvironmentStatus.EXPIRED)


async def test_it_is_not_paused_for_ever(world: World) -> None:
    """It counts for its owner's quota until it is over."""
    environment_id = (await make(world)).environment_id
    await world.service.pause(world.user, environment_id)
    assert world.service.live_count == 1
    world.clock.advance(world.settings.max_paused_s + 1)
    world.service.end_expired()
    row = await world.until_status(environment_id, EnvironmentStatus.EXPIRED)
    assert "paused" in (row.status_reason or "")
    with pytest.raises(EnvironmentNotRunning):
        await world.service.resume(world.user, environment_id)


async def test_paused_at_the_end_of_its_lifetime(world: World) -> None:
    """Who asked for that gets the whole lifetime anew; its sandbox is let live for longer from the start."""
    environment_id = (await make(world, timeout_s=60, on_timeout="pause")).environment_id
    assert world.runtime.made[0].lifetime_s > 60 + world.settings.max_paused_s
    world.clock.advance(61)
    world.service.end_expired()
    await world.until_status(environment_id, EnvironmentStatus.PAUSED)
    await world.service.execute(world.user, environment_id, "pass", None)
    row = await world.service.get(world.user, environment_id)
    assert row.expires_at == world.clock.now() + timedelta(seconds=60)


async def test_one_that_cannot_be_paused_at_its_end_ends(world: World) -> None:
    """Nothing outlives its lifetime because of a launcher that is away."""
    environment_id = (await make(world, on_timeout="pause")).environment_id
    world.runtime.sandboxes[environment_id].standstill.failure = LauncherUnavailable("away")
    world.clock.advance(61)
    world.service.end_expired()
    await world.until_status(environment_id, EnvironmentStatus.EXPIRED)


async def test_what_nobody_uses_is_paused(world: World) -> None:
    """Counted from the end of the last use; what runs is a use."""
    environment_id = (await make(world, timeout_s=1000, idle_s=10)).environment_id
    running = await world.start_execution(environment_id, SLEEP)
    world.clock.advance(30)
    world.service.end_expired()
    await asyncio.sleep(0)
    assert not stands_still(world, environment_id)
    running.cancel()
    await world.until(lambda: world.service.running_count == 0)
    world.clock.advance(9)
    world.service.end_expired()
    await asyncio.sleep(0)
    assert not stands_still(world, environment_id)
    world.clock.advance(2)
    world.service.end_expired()
    await world.until_status(environment_id, EnvironmentStatus.PAUSED)
    await world.service.resume(world.user, environment_id)
    world.clock.advance(11)
    world.service.end_expired()
    await world.until_status(environment_id, EnvironmentStatus.PAUSED)


async def test_an_open_port_is_a_use(world: World) -> None:
    """Whoever talks to a server inside is not left waiting; from the end on the time counts."""
    environment_id = (await make(world, timeout_s=1000, idle_s=10)).environment_id
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    live = world.service._lifecycle.find(environment_id)
    assert live is not None
    network: Any = (await live.wait_for_sandbox()).network
    network.ports[8000] = server.sockets[0].getsockname()[:2]
    async with world.service.ports.connect(world.user, environment_id, 8000) as stream:
        assert await stream.receive() == b""
        world.clock.advance(60)
        world.service.end_expired()
        await asyncio.sleep(0)
        assert not stands_still(world, environment_id)
    server.close()
    world.clock.advance(9)
    world.service.end_expired()
    await asyncio.sleep(0)
    assert not stands_still(world, environment_id)
    world.clock.advance(2)
    world.service.end_expired()
    await world.until_status(environment_id, EnvironmentStatus.PAUSED)


async def test_what_runs_stands_still_along(world: World) -> None:
    """Its time limit too; cancelling it resumes the environment, deleting the environment ends both at once."""
    environment_id = (await make(world)).environment_id
    first = await world.start_execution(environment_id, SLEEP)
    await world.service.pause(world.user, environment_id)
    (execution_id,) = world.service._lifecycle.find(environment_id).running  # type: ignore[union-attr]
    cancelled = await world.service.cancel_execution(world.user, environment_id, execution_id)
    assert cancelled.status is ExecutionStatus.CANCELLED
    assert (await first).status is ExecutionStatus.CANCELLED
    second = await world.start_execution(environment_id, SLEEP)
    await world.service.pause(world.user, environment_id)
    await world.service.delete(world.user, environment_id)
    assert (await second).status is ExecutionStatus.CANCELLED
    assert world.service.live_count == 0


async def test_a_paused_one_is_adopted_as_paused(world: World) -> None:
    """By the process after one that was killed, with the lifetime it had; one that expired meanwhile ends."""
    kept, over = [(await make(world)).environment_id for _each in range(2)]
    for environment_id in (kept, over):
        await world.service.pause(world.user, environment_id)
    row = await world.service.update(world.user, kept, EnvironmentChange(timeout_s=70))
    # The runtime lets what stands still go on to adopt it.
    await world.runtime.sandboxes[kept].standstill.end()
    await world.restart()
    await world.until(lambda: stands_still(world, kept))
    assert await world.service.get(world.user, kept) == row
    assert (await world.service.execute(world.user, kept, "print('on')", None)).stdout == "on\n"
    world.clock.advance(world.settings.max_paused_s + 1)
    await world.restart()
    await world.until_status(over, EnvironmentStatus.EXPIRED)


@pytest.mark.parametrize("fault", [LauncherUnavailable("away"), SandboxFailed("refused")])
async def test_one_that_cannot_be_paused_goes_on(world: World, fault: SandgateError) -> None:
    """The caller is told, and it can be used."""
    environment_id = (await make(world)).environment_id
    standstill = world.runtime.sandboxes[environment_id].standstill
    standstill.failure = fault
    with pytest.raises(LauncherUnavailable):
        await world.service.pause(world.user, environment_id)
    assert (await world.service.execute(world.user, environment_id, "print('on')", None)).stdout == "on\n"
    standstill.failure = None
    await world.service.pause(world.user, environment_id)
    standstill.failure = fault
    with pytest.raises(LauncherUnavailable):
        await world.service.execute(world.user, environment_id, "pass", None)
    standstill.failure = None
    assert (await world.service.execute(world.user, environment_id, "print('on')", None)).stdout == "on\n"


async def test_without_the_database_it_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing depends on the row to use it; who pauses it is told that the pause is not durable."""

    async def refuse(_row: Environment) -> bool:
        raise StoreUnavailable("away")

    environment_id = (await make(world)).environment_id
    monkeypatch.setattr(world.store.environments, "write_pause", refuse)
    with pytest.raises(StoreUnavailable):
        await world.service.pause(world.user, environment_id)
    assert stands_still(world, environment_id)
    assert (await world.service.execute(world.user, environment_id, "print('on')", None)).stdout == "on\n"


async def test_a_pause_whose_caller_leaves_is_whole(world: World) -> None:
    """And a use that comes in the middle of it is not lost."""
    environment_id = (await make(world)).environment_id
    pausing = asyncio.ensure_future(world.service.pause(world.user, environment_id))
    await asyncio.sleep(0)
    pausing.cancel()
    ran = await world.service.execute(world.user, environment_id, "print('on')", None)
    assert ran.stdout == "on\n"
    pauses = [asyncio.ensure_future(world.service.pause(world.user, environment_id)) for _each in range(3)]
    uses = [world.service.execute(world.user, environment_id, "print('on')", None) for _each in range(3)]
    assert [each.status for each in await asyncio.gather(*uses)] == [ExecutionStatus.COMPLETED] * 3
    await asyncio.gather(*pauses)


async def test_a_sandbox_that_died_is_not_resumed(world: World) -> None:
    """It has failed, as any other that dies."""
    environment_id = (await make(world)).environment_id
    await world.service.pause(world.user, environment_id)
    world.runtime.kill(environment_id, "it was killed")
    with pytest.raises(EnvironmentNotRunning):
        await world.service.execute(world.user, environment_id, "pass", None)
    await world.until_status(environment_id, EnvironmentStatus.FAILED)


async def test_it_is_its_owner_s_to_pause(world: World) -> None:
    """Others do not see it, and viewers change nothing."""
    environment_id = (await make(world)).environment_id
    for act in (world.service.pause, world.service.resume):
        with pytest.raises(EnvironmentNotFound):
            await act(make_principal(), environment_id)
        with pytest.raises(Forbidden):
            await act(replace(world.user, role=Role.VIEWER), environment_id)
    assert not stands_still(world, environment_id)


async def test_classes_that_cannot_be_paused_refuse_it(world: World) -> None:
    """Also the wish for it when one is made; the server's own setting is passed over."""
    world.runtime = FakeRuntime()
    world.runtime.pausable = False
    world.settings = world.settings.model_copy(update={"default_idle_timeout_s": 5})
    world.service = world.make_service()
    await world.service.start()
    for wanted in ({"on_timeout": OnTimeout.PAUSE}, {"idle_timeout_s": 5}):
        with pytest.raises(PauseUnavailable):
            await world.service.create(world.user, NewEnvironment("e", "python-3.9", **wanted))
    environment_id = await world.create_running()
    with pytest.raises(PauseUnavailable):
        await world.service.pause(world.user, environment_id)
    world.clock.advance(6)
    world.service.end_expired()
    await asyncio.sleep(0)
    assert not stands_still(world, environment_id)


async def test_with_nothing_left_of_its_lifetime_it_goes_on_to_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher is never told of less than no time, which it would take for nonsense."""
    environment_id = (await make(world, timeout_s=60)).environment_id
    told: list[float] = []
    sandbox = world.runtime.sandboxes[environment_id]
    extend = sandbox.extend

    async def note(lifetime_s: float) -> None:
        told.append(lifetime_s)
        await extend(lifetime_s)

    monkeypatch.setattr(sandbox, "extend", note)
    live = world.service._lifecycle.find(environment_id)
    assert live is not None
    live.deadline = world.clock.monotonic() - 1
    await world.service.pause(world.user, environment_id)
    resumed = live.row.resumed

    def resumed_before(_now: object) -> Environment:
        return resumed(world.clock.now() - timedelta(seconds=1))

    monkeypatch.setattr(Environment, "resumed", lambda _row, now: resumed_before(now))
    await world.service.resume(world.user, environment_id)
    assert min(told) >= 0
    world.service.end_expired()
    await world.until_status(environment_id, EnvironmentStatus.EXPIRED)


async def test_what_goes_on_is_counted_though_its_wall_was_not_moved(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs: its lifetime goes on, too, and its row says so."""
    environment_id = (await make(world, timeout_s=60)).environment_id
    await world.service.pause(world.user, environment_id)

    async def fail(_lifetime_s: float) -> None:
        raise LauncherUnavailable("away")

    monkeypatch.setattr(world.runtime.sandboxes[environment_id], "extend", fail)
    with pytest.raises(LauncherUnavailable):
        await world.service.resume(world.user, environment_id)
    row = await world.service.get(world.user, environment_id)
    assert (row.status, row.expires_at) == (EnvironmentStatus.RUNNING, world.clock.now() + timedelta(seconds=60))
    world.clock.advance(61)
    world.service.end_expired()
    await world.until_status(environment_id, EnvironmentStatus.EXPIRED)


async def test_a_resume_that_is_not_written_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on all the same."""
    environment_id = (await make(world)).environment_id
    await world.service.pause(world.user, environment_id)

    async def fail(_row: Environment) -> bool:
        raise StoreUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(world.store.environments, "write_pause", fail)
        with pytest.raises(StoreUnavailable):
            await world.service.resume(world.user, environment_id)
    assert not stands_still(world, environment_id)
