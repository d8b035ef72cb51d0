"""Copies of environments, on a fake runtime whose files are real."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from sandgate.core.environment import Environment
from sandgate.core.errors import (
    EnvironmentNotRunning,
    FilesUnavailable,
    InvalidRequest,
    LauncherUnavailable,
    SandboxFailed,
    SnapshotTooLarge,
    StoreUnavailable,
    TooManyEnvironments,
)
from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import MIB, AskedLimits
from sandgate.core.principal import Principal, Role
from sandgate.core.quota import UserQuota
from sandgate.core.states import EnvironmentStatus
from sandgate.core.variables import Variables
from sandgate.environments.life import NewCopies
from sandgate.environments.snapshots import NewSnapshot
from sandgate.sandbox.base import Sandbox
from tests.unit.environments.conftest import World, make_principal
from tests.unit.environments.filled import files_of, filled, owner, read, start, write

__all__ = ["owner"]


async def test_copies_have_what_the_environment_has(world: World, owner: Principal) -> None:
    """Files, limits, network, variables, labels; a life of their own, and a name if one is asked for."""
    variables = Variables({"A": "1"}, ())
    asked = AskedLimits(disk_bytes=64 * MIB)
    first = await filled(world, variables=variables, metadata={"k": "v"}, limits=asked, timeout_s=500)
    source = await world.service.get(owner, first)
    copies = await world.service.fork(owner, first, NewCopies(3))
    await write(world, first, "changed")
    for copy in copies:
        assert await read(world, copy.environment_id) == "kept"
        assert (copy.forked_from, copy.snapshot_id, copy.status) == (first, None, EnvironmentStatus.CREATING)
        for name in ("owner_id", "name", "template", "isolation", "limits", "metadata", "variables", "timeout_s"):
            assert getattr(copy, name) == getattr(source, name)
    (other,) = await world.service.fork(owner, first, NewCopies(1, "other", {"new": "1"}, 9))
    assert (other.name, other.metadata, other.timeout_s) == ("other", {"new": "1"}, 9)
    assert await read(world, other.environment_id) == "changed"
    assert files_of(world) == []


async def test_copies_are_counted_before_any_work(world: World, owner: Principal) -> None:
    """All of them fit, or none is made and nothing is stopped."""
    first = await filled(world)
    await world.service.quotas.put(make_principal(Role.ADMIN), owner.user_id, UserQuota(environments=3))
    sandbox = world.runtime.sandboxes[first]
    sandbox.standstill.failure = SandboxFailed("nobody asks")
    with pytest.raises(TooManyEnvironments):
        await world.service.fork(owner, first, NewCopies(3))
    with pytest.raises(InvalidRequest, match="at most 32"):
        await world.service.fork(owner, first, NewCopies(33))
    sandbox.standstill.failure = None
    assert world.service.live_count == 1
    assert len(await world.service.fork(owner, first, NewCopies(2))) == 2
    with pytest.raises(TooManyEnvironments):
        await world.service.fork(owner, first, NewCopies())


async def test_files_that_take_long_hold_up_nobody_else(world: World, owner: Principal) -> None:
    """Others' environments are made meanwhile; one that waits for its files can be deleted at once."""
    snapshot = await world.service.snapshots.create(owner, await filled(world), NewSnapshot())
    filling = world.service._lifecycle.filling
    assert filling is not None
    fill, gate = filling.fill, asyncio.Event()

    async def slow(row: Environment, sandbox: Sandbox) -> None:
        await gate.wait()
        await fill(row, sandbox)

    filling.fill = slow  # type: ignore[method-assign]
    started = [await start(world, snapshot) for _number in range(12)]
    plain = await world.create_running()
    assert (await world.service.execute(owner, plain, "print(1)", None)).stdout == "1\n"
    for each in started[:2]:
        await world.service.delete(owner, each.environment_id)
    gate.set()
    for each in started[2:4]:
        assert await read(world, each.environment_id) == "kept"


async def test_what_goes_wrong_with_files_ends_one_environment(world: World, owner: Principal) -> None:
    """However unforeseen: it failed, and the service goes on."""
    snapshot = await world.service.snapshots.create(owner, await filled(world), NewSnapshot())
    filling = world.service._lifecycle.filling
    assert filling is not None

    async def broken(row: Environment, sandbox: Sandbox) -> None:
        raise KeyError("a bug")

    filling.fill = broken  # type: ignore[method-assign]
    before = world.service.live_count
    started = await start(world, snapshot)
    await world.until(lambda: world.service.live_count == before)
    assert (await world.service.get(owner, started.environment_id)).status is EnvironmentStatus.FAILED
    assert await world.create_running()


@pytest.mark.parametrize("lacks", [True, False])
async def test_nothing_runs_while_files_are_copied(world: World, owner: Principal, lacks: bool) -> None:
    """From one sandbox to the others, or by an archive where that cannot be done; one that is paused stays so."""
    first = await filled(world)
    standstill, copies = world.runtime.sandboxes[first].standstill, world.runtime.copies
    copy, stood = copies.copy, []

    async def watched(*arguments: Any) -> bool:
        stood.append(standstill.is_on)
        return await copy(*arguments)

    copies.copy = watched  # type: ignore[method-assign, assignment]
    copies.can_copy = not lacks
    for paused in (False, True):
        if paused:
            await world.service.pause(owner, first)
        made = await world.service.fork(owner, first, NewCopies(2))
        assert [await read(world, each.environment_id) for each in made] == ["kept", "kept"]
        row = await world.service.get(owner, first)
        await world.until(lambda wanted=paused: standstill.is_on is wanted)  # type: ignore[misc]
        assert (row.status is EnvironmentStatus.PAUSED) is paused
    assert stood == [True] * (2 if lacks else 4)
    assert len(copies.made) == (0 if lacks else 4)
    assert files_of(world) == []


async def test_there_are_all_copies_or_none(world: World, owner: Principal) -> None:
    """What is too large, cannot be read in time, or ends meanwhile is refused, and no copy stays; all goes on."""
    first = await filled(world)
    copies, before = world.runtime.copies, world.service.live_count
    for failure in (SnapshotTooLarge("large", {}), LauncherUnavailable("away"), FilesUnavailable("it ended")):
        copies.failure = failure
        with pytest.raises(type(failure)):
            await world.service.fork(owner, first, NewCopies(3))
        await world.until(lambda: world.service.live_count == before)
        assert not world.runtime.sandboxes[first].standstill.is_on
    copies.failure = None
    (copy,) = await world.service.fork(owner, first, NewCopies())
    assert await read(world, copy.environment_id) == "kept"


@pytest.mark.parametrize("comes", [True, False])
async def test_nobody_is_told_of_copies_that_may_be_lost(
    world: World, owner: Principal, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    """The answer waits until it is on the disk that they have their files; without that there is none."""
    monkeypatch.setattr("sandgate.environments.forking._KEPT_WAIT_S", 60 if comes else 0.05)
    first = await filled(world)
    store = world.store.environments
    write_down, may_write, asked = store.note_running, asyncio.Event(), asyncio.Event()

    async def slow(names: Sequence[EnvironmentId]) -> None:
        asked.set()
        await may_write.wait()
        await write_down(names)

    monkeypatch.setattr(store, "note_running", slow)
    before = world.service.live_count
    forking = asyncio.ensure_future(world.service.fork(owner, first, NewCopies()))
    await asked.wait()
    if comes:
        # Were it to be answered now, it would be within a few turns.
        for _turn in range(100):
            await asyncio.sleep(0)
        assert not forking.done()
        may_write.set()
        (copy,) = await forking
        row = await store.find(copy.environment_id)
        assert row is not None
        assert row.status is EnvironmentStatus.RUNNING
    else:
        with pytest.raises(StoreUnavailable):
            await forking
        await world.until(lambda: world.service.live_count == before)


async def test_one_whose_files_do_not_come_fails_alone(world: World, owner: Principal) -> None:
    """With the reason; so does one that ends before it has them."""
    first = await filled(world)
    copies = world.runtime.copies
    copy = copies.copy

    async def failing(source: EnvironmentId, target: EnvironmentId, *arguments: Any) -> bool:
        if not copies.made:
            copies.made.append((source, target))
            raise SandboxFailed("no room")
        return await copy(source, target, *arguments)

    copies.copy = failing  # type: ignore[method-assign, assignment]
    made = await world.service.fork(owner, first, NewCopies(3))
    bad = copies.made[0][1]
    row = await world.until_status(bad, EnvironmentStatus.FAILED)
    assert row.status_reason is not None
    assert "no room" in row.status_reason
    for each in made:
        if each.environment_id != bad:
            assert await read(world, each.environment_id) == "kept"


async def test_copies_that_end_while_others_are_made_hold_up_none(world: World, owner: Principal) -> None:
    """What waits for all sandboxes to be there does not wait for those that never will be, nor for the original."""
    first = await filled(world)
    world.runtime.gate = asyncio.Event()
    asking = asyncio.ensure_future(world.service.fork(owner, first, NewCopies(3)))
    await world.until(lambda: world.runtime.making == 3)
    gone = next(live for live in world.service._lifecycle.all() if live.environment_id != first)
    deleting = asyncio.ensure_future(world.service.delete(owner, gone.environment_id))
    await world.until(lambda: gone.ending is not None)
    world.runtime.gate.set()
    await deleting
    made = await asking
    kept = [each.environment_id for each in made if each.environment_id != gone.environment_id]
    assert [await read(world, each) for each in kept] == ["kept", "kept"]
    world.runtime.gate.clear()
    asking = asyncio.ensure_future(world.service.fork(owner, first, NewCopies(2)))
    await world.until(lambda: world.runtime.making == 2)
    await world.service.delete(owner, first)
    world.runtime.gate.set()
    with pytest.raises(EnvironmentNotRunning):
        await asking
    await world.until(lambda: world.service.live_count == 2)


@pytest.mark.parametrize("pausable", [True, False])
async def test_a_snapshot_of_what_ends_meanwhile_is_refused(world: World, owner: Principal, pausable: bool) -> None:
    """As anything else that is asked of it; no file is left. Whether it is read from outside or from within."""
    first = await filled(world, "x" * 3_000_000)
    world.runtime.pausable = pausable
    world.runtime.copies.gate = gate = asyncio.Event()
    asking = asyncio.ensure_future(world.service.snapshots.create(owner, first, NewSnapshot()))
    await world.until(lambda: any(name.endswith(".part") for name in files_of(world)))
    await world.service.delete(owner, first)
    gate.set()
    with pytest.raises(EnvironmentNotRunning):
        await asking
    assert files_of(world) == []
