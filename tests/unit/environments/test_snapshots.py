"""Snapshots and copies of environments, on a fake runtime whose files are real."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from sandgate.config.settings import Settings
from sandgate.core.errors import (
    EnvironmentNotFound,
    Forbidden,
    InvalidRequest,
    SandboxFailed,
    SandgateError,
    ServiceDraining,
    SnapshotElsewhere,
    SnapshotNotFound,
    SnapshotTooLarge,
    SnapshotUnavailable,
    SnapshotUnfit,
    SnapshotUnreadable,
    TooManySnapshots,
    UnknownTemplate,
)
from sandgate.core.ids import EnvironmentId, SnapshotId, make_snapshot_id
from sandgate.core.limits import MIB, AskedLimits
from sandgate.core.page import PageRequest
from sandgate.core.principal import Principal, Role
from sandgate.core.quota import UserQuota
from sandgate.core.snapshot import SnapshotUse
from sandgate.core.states import EnvironmentStatus, ExecutionStatus, Isolation
from sandgate.environments import capturing
from sandgate.environments.base import NewEnvironment
from sandgate.environments.captures import Captured
from sandgate.environments.life import NewCopies
from sandgate.environments.snapshots import NewSnapshot
from sandgate.sandbox.base import SandboxSpec
from sandgate.store.snapshot_files import SnapshotFiles, SnapshotWriter
from sandgate.testing.fake_runtime import FakeRuntime
from tests.unit.environments.conftest import World, make_principal
from tests.unit.environments.filled import files_of, filled, known, owner, read, start, write

__all__ = ["owner"]

SLEEP = "import time; time.sleep(60)"


async def test_an_environment_begins_with_a_snapshot(world: World, owner: Principal) -> None:
    """As the files were then; what is changed here or there later is its own. The row tells where it began."""
    first = await filled(world, metadata={"k": "v"})
    row = await world.service.snapshots.create(owner, first, NewSnapshot("s", {"a": "b"}))
    assert (row.name, row.metadata, row.template, row.environment_id) == ("s", {"a": "b"}, "python-3.9", first)
    assert (row.files, row.is_consistent, row.isolation) == (1, True, Isolation.STANDARD)
    assert await world.service.snapshots.get(owner, row.snapshot_id) == row
    assert (await world.service.snapshots.list(owner, PageRequest())).items == (row,)
    await write(world, first, "changed")
    second = await start(world, row)
    assert (second.template, second.snapshot_id, second.metadata) == ("python-3.9", row.snapshot_id, {})
    assert await read(world, second.environment_id) == "kept"
    third = await start(world, row, template="python-3.9", name="named")
    assert await read(world, third.environment_id) == "kept"


async def test_what_runs_stands_still_meanwhile_and_goes_on(world: World, owner: Principal) -> None:
    """The same execution, whose time stood still; of a class that cannot be stopped the files are read all the same."""
    environment_id = await filled(world)
    running = await world.start_execution(environment_id, SLEEP)
    sandbox = world.runtime.sandboxes[environment_id]
    stood: list[bool] = []
    begin = sandbox.standstill.begin

    async def begin_watched() -> bool:
        begun = await begin()
        stood.append(sandbox.standstill.is_on)
        return begun

    sandbox.standstill.begin = begin_watched  # type: ignore[method-assign]
    await world.service.snapshots.create(owner, environment_id, NewSnapshot())
    assert stood == [True]
    assert not sandbox.standstill.is_on
    assert not running.done()
    world.runtime.pausable = False
    await world.service.snapshots.create(owner, environment_id, NewSnapshot())
    assert stood == [True]
    await world.service.delete(owner, environment_id)
    assert (await running).status is ExecutionStatus.CANCELLED


async def test_one_that_is_paused_is_so_afterwards(world: World, owner: Principal) -> None:
    """Nothing of it goes on for that."""
    environment_id = await filled(world)
    await world.until_status(environment_id, EnvironmentStatus.RUNNING)
    await world.service.pause(owner, environment_id)
    row = await world.service.snapshots.create(owner, environment_id, NewSnapshot())
    assert row.files == 1
    await world.until_status(environment_id, EnvironmentStatus.PAUSED)


async def test_others_find_none(world: World, owner: Principal) -> None:
    """Neither the snapshot nor the environment; an admin sees all, and what it makes belongs to the owner."""
    environment_id = await filled(world)
    row = await world.service.snapshots.create(owner, environment_id, NewSnapshot())
    stranger, admin = make_principal(), await known(world, make_principal(Role.ADMIN))
    snapshots = world.service.snapshots
    for refused in (snapshots.get(stranger, row.snapshot_id), snapshots.delete(stranger, row.snapshot_id)):
        with pytest.raises(SnapshotNotFound):
            await refused
    for foreign in (
        snapshots.create(stranger, environment_id, NewSnapshot()),
        world.service.fork(stranger, environment_id, NewCopies()),
    ):
        with pytest.raises(EnvironmentNotFound):
            await foreign
    with pytest.raises(SnapshotNotFound):
        await world.service.create(stranger, NewEnvironment("e", None, snapshot_id=row.snapshot_id))
    assert (await snapshots.list(stranger, PageRequest())).items == ()
    assert (await snapshots.list(admin, PageRequest())).items == (row,)
    again = await snapshots.create(admin, environment_id, NewSnapshot())
    (copy,) = await world.service.fork(admin, environment_id, NewCopies())
    assert again.owner_id == copy.owner_id == owner.user_id
    viewer = Principal(owner.user_id, owner.name, Role.VIEWER)
    for changing in (
        snapshots.create(viewer, environment_id, NewSnapshot()),
        snapshots.delete(viewer, row.snapshot_id),
        world.service.fork(viewer, environment_id, NewCopies()),
    ):
        with pytest.raises(Forbidden):
            await changing


async def test_deleted_it_is_gone_and_what_began_with_it_stays(world: World, owner: Principal) -> None:
    """Also one that has only been asked for: the file is open."""
    row = await world.service.snapshots.create(owner, await filled(world), NewSnapshot())
    assert files_of(world) == [f"{row.snapshot_id}.tar"]
    world.runtime.gate = asyncio.Event()
    second = await start(world, row)
    assert await world.service.snapshots.delete(owner, row.snapshot_id) == row
    assert files_of(world) == []
    world.runtime.gate.set()
    assert await read(world, second.environment_id) == "kept"
    for gone in (
        world.service.snapshots.get(owner, row.snapshot_id),
        world.service.snapshots.delete(owner, row.snapshot_id),
        start(world, row),
    ):
        with pytest.raises(SnapshotNotFound):
            await gone


@pytest.mark.parametrize("quota", [UserQuota(snapshots=1), UserQuota(snapshot_bytes=1)], ids=["count", "bytes"])
async def test_nobody_has_more_than_the_quota(world: World, owner: Principal, quota: UserQuota) -> None:
    """Refused before anything is stopped; deleting one makes room."""
    environment_id = await filled(world)
    row = await world.service.snapshots.create(owner, environment_id, NewSnapshot())
    admin = make_principal(Role.ADMIN)
    report = await world.service.quotas.put(admin, owner.user_id, quota)
    assert (report.use.snapshots, report.use.snapshot_bytes) == (1, row.size_bytes)
    sandbox = world.runtime.sandboxes[environment_id]
    sandbox.standstill.failure = SandboxFailed("nobody asks")
    with pytest.raises(TooManySnapshots):
        await world.service.snapshots.create(owner, environment_id, NewSnapshot())
    sandbox.standstill.failure = None
    await world.service.snapshots.delete(owner, row.snapshot_id)
    await world.service.quotas.put(admin, owner.user_id, UserQuota(snapshots=1))
    assert await world.service.snapshots.create(owner, environment_id, NewSnapshot())


async def test_what_is_too_large_leaves_nothing(world: World, owner: Principal) -> None:
    """By what is left to the user; by its number of entries; and the environment goes on."""
    environment_id = await filled(world, "x" * 100_000)
    await world.service.quotas.put(make_principal(Role.ADMIN), owner.user_id, UserQuota(snapshot_bytes=50_000))
    with pytest.raises(SnapshotTooLarge):
        await world.service.snapshots.create(owner, environment_id, NewSnapshot())
    await world.service.quotas.delete(make_principal(Role.ADMIN), owner.user_id)
    await world.service.files.make_folder(owner, environment_id, "folder")
    bounds: tuple[dict[str, Any], ...] = ({"max_snapshot_entries": 1}, {"max_snapshot_bytes": 50_000})
    for bound in bounds:
        world.settings = Settings(drain_grace_s=0.02, **bound)
        await world.restart()
        for refused in (
            world.service.snapshots.create(owner, environment_id, NewSnapshot()),
            world.service.fork(owner, environment_id, NewCopies()),
        ):
            with pytest.raises(SnapshotTooLarge):
                await refused
    assert files_of(world) == []
    assert not world.runtime.sandboxes[environment_id].standstill.is_on
    await world.until(lambda: world.service.live_count == 1)


async def test_what_does_not_fit_is_refused(world: World, owner: Principal) -> None:
    """Another template, too small a disk, a class without walls; neither a template nor a snapshot."""
    world.runtime = FakeRuntime(world.runtime.sandboxes, others=(Isolation.PROCESS,))
    world.service = world.make_service()
    await world.service.start()
    environment_id = await filled(world, "x" * (2 * MIB))
    row = await world.service.snapshots.create(owner, environment_id, NewSnapshot())
    for unfit in (
        {"template": "python-3.11"},
        {"limits": AskedLimits(disk_bytes=MIB)},
        {"isolation": Isolation.PROCESS},
    ):
        with pytest.raises((SnapshotUnfit, UnknownTemplate)):
            await start(world, row, **unfit)
    with pytest.raises(InvalidRequest):
        await world.service.create(owner, NewEnvironment("e", None))
    plain = await filled(world, isolation=Isolation.PROCESS)
    for refused in (
        world.service.snapshots.create(owner, plain, NewSnapshot()),
        world.service.fork(owner, plain, NewCopies()),
    ):
        with pytest.raises(SnapshotUnavailable):
            await refused


async def test_a_damaged_file_starts_nothing(world: World, owner: Principal) -> None:
    """Another content: the environment fails, and says so; without a file it is refused, and on another server, too."""
    row = await world.service.snapshots.create(owner, await filled(world), NewSnapshot())
    path = world.snapshot_files._folder / f"{row.snapshot_id}.tar"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"kept", b"kepT"))
    second = await start(world, row)
    failed = await world.until_status(second.environment_id, EnvironmentStatus.FAILED)
    assert failed.status_reason is not None
    assert "not what was written" in failed.status_reason
    path.unlink()
    with pytest.raises(SnapshotUnreadable):
        await start(world, row)
    other = replace(row, snapshot_id=make_snapshot_id(), server_id="another")
    await world.store.snapshots.insert(other, SnapshotUse(1000, 2**50))
    with pytest.raises(SnapshotElsewhere):
        await start(world, other)
    assert world.service.live_count == 1


async def test_what_changes_meanwhile_is_read_again(
    world: World, owner: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few times; then it is kept and said to be as it was at no one moment."""
    world.runtime.pausable = False
    environment_id = await filled(world)
    answers: list[bool] = []
    parse = capturing._parse

    def told(ended: Mapping[str, Any], size: int) -> Captured:
        return replace(parse(ended, size), is_consistent=answers.pop(0))

    monkeypatch.setattr(capturing, "_parse", told)
    answers[:] = [False, True]
    assert (await world.service.snapshots.create(owner, environment_id, NewSnapshot())).is_consistent
    answers[:] = [False] * 3
    assert not (await world.service.snapshots.create(owner, environment_id, NewSnapshot())).is_consistent
    assert not answers
    assert len(files_of(world)) == 2


async def test_one_that_was_not_filled_is_lost_with_the_service(world: World, owner: Principal) -> None:
    """It is nobody's to use without its files; one that was goes on."""
    row = await world.service.snapshots.create(owner, await filled(world), NewSnapshot())
    begun = await start(world, row)
    assert await read(world, begun.environment_id) == "kept"
    behind = replace(begun, environment_id=EnvironmentId("env-0000000000000000000000behind"))
    await world.store.environments.insert(behind)
    await world.runtime.create(SandboxSpec(behind.environment_id, behind.template, behind.limits, 60))
    await world.restart()
    failed = await world.until_status(behind.environment_id, EnvironmentStatus.FAILED)
    assert failed.status_reason is not None
    assert "before its files were laid out" in failed.status_reason
    assert await read(world, begun.environment_id) == "kept"


async def test_files_without_a_row_are_swept(world: World, owner: Principal) -> None:
    """What was half written goes at the start; what is too old goes with its file; what is coming stays."""
    row = await world.service.snapshots.create(owner, await filled(world), NewSnapshot())
    orphan, half = make_snapshot_id(), make_snapshot_id()
    world.snapshot_files.create(orphan).finish()
    left = world.snapshot_files.create(half)
    await world.service.snapshots.prepare()
    left.discard()
    assert files_of(world) == [f"{row.snapshot_id}.tar"]
    coming = make_snapshot_id()
    world.snapshot_files.create(coming).finish()
    world.service.snapshots._coming.add(coming)
    assert await world.service.snapshots.sweep() == 0
    world.service.snapshots._coming.clear()
    assert await world.service.snapshots.sweep() == 1
    world.settings = Settings(drain_grace_s=0.02, snapshot_retention_s=10)
    await world.restart()
    assert await world.service.snapshots.sweep() == 0
    world.clock.advance(11)
    assert await world.service.snapshots.sweep() == 2
    assert files_of(world) == []
    assert (await world.service.snapshots.list(owner, PageRequest())).items == ()


async def test_a_client_that_goes_away_leaves_nothing(world: World, owner: Principal) -> None:
    """Neither a file nor an environment that stands still, nor a place in the quota."""
    environment_id = await filled(world, "x" * 1_000_000)
    for asked in (
        lambda: world.service.snapshots.create(owner, environment_id, NewSnapshot()),
        lambda: world.service.fork(owner, environment_id, NewCopies(2)),
    ):
        asking = asyncio.ensure_future(asked())
        await world.until(lambda: world.runtime.sandboxes[environment_id].standstill.is_on)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await world.until(lambda: not world.runtime.sandboxes[environment_id].standstill.is_on)
        assert files_of(world) == []
        await world.until(lambda: world.service.live_count == 1)
    assert (await world.service.snapshots.create(owner, environment_id, NewSnapshot())).files == 1


async def test_a_service_that_stops_takes_no_new_ones(world: World, owner: Principal) -> None:
    """Neither snapshots nor copies."""
    environment_id = await filled(world)
    world.service._draining = True
    for refused in (
        world.service.snapshots.create(owner, environment_id, NewSnapshot()),
        world.service.fork(owner, environment_id, NewCopies()),
    ):
        with pytest.raises(ServiceDraining):
            await refused
    world.service._draining = False


async def test_a_disk_that_is_full_is_the_servers_trouble(world: World, owner: Principal) -> None:
    """It is told as such, and the environment goes on."""
    environment_id = await filled(world)

    class Full(SnapshotFiles):
        def create(self, snapshot_id: SnapshotId) -> SnapshotWriter:
            raise OSError(28, "No space left on device", snapshot_id)

    world.service.snapshots._files = Full(world.snapshot_files._folder)
    with pytest.raises(SandgateError, match="No space left on device") as caught:
        await world.service.snapshots.create(owner, environment_id, NewSnapshot())
    assert caught.value.code == "STORE_UNAVAILABLE"
    assert not world.runtime.sandboxes[environment_id].standstill.is_on
