"""Volumes: who has them, what is refused, and what becomes of a deletion that was begun."""

import asyncio
from dataclasses import replace
from typing import Literal

import pytest

from sandgate.config.settings import Settings
from sandgate.core.errors import (
    Forbidden,
    InvalidRequest,
    LauncherUnavailable,
    LimitTooHigh,
    StoreUnavailable,
    VolumeElsewhere,
    VolumeInUse,
    VolumeNameTaken,
    VolumeNotFound,
    VolumeQuotaExceeded,
    VolumesUnavailable,
)
from sandgate.core.ids import EnvironmentId, make_volume_id
from sandgate.core.limits import MIB
from sandgate.core.page import PageRequest
from sandgate.core.principal import Principal, Role
from sandgate.core.quota import UserQuota
from sandgate.core.states import EnvironmentStatus, Isolation
from sandgate.core.volume import VolumeView, VolumeWish
from sandgate.environments.base import NewEnvironment
from sandgate.store.sql_store import SqlStore
from sandgate.testing.fake_runtime import FakeRuntime
from tests.contract.store.records import a_user
from tests.unit.environments.conftest import World

_WISH = VolumeWish("data", "/data")


async def somebody(world: World, role: Role = Role.USER) -> Principal:
    """Somebody who is in the database."""
    user = a_user(role=role)
    await world.store.users.insert(user)
    return Principal(user.user_id, user.name, role)


@pytest.fixture
async def owner(world: World) -> Principal:
    """Who has the volumes."""
    return await somebody(world)


async def make(world: World, owner: Principal, *wishes: VolumeWish) -> EnvironmentId:
    """A running environment with these."""
    row = await world.service.create(owner, NewEnvironment("e", "python", volumes=wishes))
    await world.until_status(row.environment_id, EnvironmentStatus.RUNNING)
    return row.environment_id


async def test_a_volume_is_made_given_and_measured(world: World, owner: Principal) -> None:
    """Its environment's sandbox is asked for it; the volume tells who has it and how full it is."""
    made = await world.service.volumes.create(owner, "data", 64 * MIB)
    assert (made.row.name, made.row.size_bytes, made.used_bytes, list(made.environments)) == ("data", 64 * MIB, 0, [])
    assert world.runtime.volumes.sizes == {made.row.volume_id: 64 * MIB}
    environment_id = await make(world, owner, replace(_WISH, read_only=True))
    (mounted,) = world.runtime.volumes.mounted[environment_id]
    assert (mounted.volume_id, mounted.path, mounted.read_only) == (made.row.volume_id, "/data", True)
    assert mounted.size_bytes == 64 * MIB
    assert (await world.service.get(owner, environment_id)).volumes == (mounted,)
    world.runtime.volumes.used[made.row.volume_id] = 5
    seen = await world.service.volumes.get(owner, made.row.volume_id)
    assert seen == VolumeView(made.row, 5, [environment_id])
    assert (await world.service.volumes.list(owner, PageRequest())).items == (seen,)
    assert (await world.service.volumes.list(owner, PageRequest(), "other")).items == ()


async def test_without_a_size(world: World, owner: Principal) -> None:
    """It has that of the settings."""
    made = await world.service.volumes.create(owner, "data", None)
    assert made.row.size_bytes == world.settings.default_volume_bytes


async def test_volumes_are_their_owners(world: World, owner: Principal) -> None:
    """For others they are not there, by id or by name; an admin sees all; who only reads makes none."""
    made = await world.service.volumes.create(owner, "data", 16 * MIB)
    stranger, admin, viewer = [await somebody(world, role) for role in (Role.USER, Role.ADMIN, Role.VIEWER)]
    for act in (world.service.volumes.get, world.service.volumes.delete):
        with pytest.raises(VolumeNotFound):
            await act(stranger, made.row.volume_id)
    assert (await world.service.volumes.list(stranger, PageRequest())).items == ()
    with pytest.raises(InvalidRequest):
        await world.service.create(stranger, NewEnvironment("e", "python", volumes=(_WISH,)))
    # An admin's own, too: what is mounted is one's own.
    with pytest.raises(InvalidRequest):
        await world.service.create(admin, NewEnvironment("e", "python", volumes=(_WISH,)))
    assert (await world.service.volumes.get(admin, made.row.volume_id)).row == made.row
    for refused in (
        world.service.volumes.create(viewer, "data", None),
        world.service.volumes.delete(viewer, made.row.volume_id),
    ):
        with pytest.raises(Forbidden):
            await refused
    assert await world.service.volumes.delete(admin, made.row.volume_id) == []


@pytest.mark.parametrize(
    "wishes",
    [
        (VolumeWish("other", "/data"),),
        (VolumeWish("data", "/proc"),),
        (VolumeWish("data", "/data/../etc"),),
        (VolumeWish("data", "/a"), VolumeWish("data", "/b")),
        (VolumeWish("data", "/a"), VolumeWish("more", "/a/b")),
        (VolumeWish("data", "/a"), VolumeWish("more", "/a")),
    ],
)
async def test_wishes_that_are_refused(world: World, owner: Principal, wishes: tuple[VolumeWish, ...]) -> None:
    """Before anything is made or counted."""
    for name in ("data", "more"):
        await world.service.volumes.create(owner, name, 16 * MIB)
    with pytest.raises(InvalidRequest):
        await world.service.create(owner, NewEnvironment("e", "python", volumes=wishes))
    assert (world.runtime.made, world.service.live_count) == ([], 0)


async def test_quotas(world: World, owner: Principal) -> None:
    """So many, so large together, and no larger one; an admin can set it. Nothing is left of what is refused."""
    volumes = world.service.volumes
    with pytest.raises(LimitTooHigh):
        await volumes.create(owner, "data", world.settings.max_volume_bytes + 1)
    await world.store.quotas.put(owner.user_id, UserQuota(volumes=2, volume_bytes=64 * MIB))
    await volumes.create(owner, "data", 32 * MIB)
    with pytest.raises(VolumeNameTaken):
        await volumes.create(owner, "data", 16 * MIB)
    with pytest.raises(VolumeQuotaExceeded) as refused:
        await volumes.create(owner, "more", 33 * MIB)
    assert refused.value.details == {"limit": 64, "used": 32, "asked": 33, "scope": "size_mb"}
    await volumes.create(owner, "more", 32 * MIB)
    with pytest.raises(VolumeQuotaExceeded) as refused:
        await volumes.create(owner, "third", 16 * MIB)
    assert refused.value.details["scope"] == "count"
    assert len(world.runtime.volumes.sizes) == 2


async def test_many_at_once(world: World, owner: Principal) -> None:
    """The quota holds, and what was made for nothing is taken away again."""
    await world.store.quotas.put(owner.user_id, UserQuota(volumes=3, volume_bytes=10**12))
    made = await asyncio.gather(
        *(world.service.volumes.create(owner, f"v{number}", 16 * MIB) for number in range(8)), return_exceptions=True
    )
    there = {each.row.volume_id for each in made if isinstance(each, VolumeView)}
    assert len(there) == 3
    assert set(world.runtime.volumes.sizes) == there


async def test_what_others_have_is_not_deleted(world: World, owner: Principal) -> None:
    """Unless it is forced, which ends them first."""
    made = await world.service.volumes.create(owner, "data", 16 * MIB)
    users = [await make(world, owner, _WISH) for _each in range(2)]
    with pytest.raises(VolumeInUse) as refused:
        await world.service.volumes.delete(owner, made.row.volume_id)
    assert refused.value.details == {"environment_ids": users}
    assert world.runtime.volumes.sizes
    await world.service.delete(owner, users[0])
    assert await world.service.volumes.delete(owner, made.row.volume_id, force=True) == users[1:]
    assert (world.runtime.volumes.sizes, world.runtime.sandboxes) == ({}, {})
    with pytest.raises(VolumeNotFound):
        await world.service.volumes.get(owner, made.row.volume_id)


@pytest.mark.parametrize("isolation", [Isolation.GVISOR, Isolation.PROCESS])
async def test_classes_without_volumes(store: SqlStore, isolation: Isolation) -> None:
    """They are refused with the reason."""
    world = World(store, runtime=FakeRuntime(others=(isolation,)))
    await world.service.start()
    owner = await somebody(world)
    await world.service.volumes.create(owner, "data", 16 * MIB)
    with pytest.raises(VolumesUnavailable) as refused:
        await world.service.create(owner, NewEnvironment("e", "python", isolation=isolation, volumes=(_WISH,)))
    assert refused.value.details["isolation"] == isolation
    await world.service.stop()


async def test_a_machine_without_volumes(world: World, owner: Principal) -> None:
    """None are made, and no environment gets one."""
    world.runtime.volumes.lack = "there is no /dev/loop-control"
    with pytest.raises(VolumesUnavailable, match="/dev/loop-control"):
        await world.service.volumes.create(owner, "data", None)
    with pytest.raises(VolumesUnavailable):
        await world.service.create(owner, NewEnvironment("e", "python", volumes=(_WISH,)))


async def test_a_volume_of_another_server(world: World, owner: Principal) -> None:
    """It is seen here, with no figure for what is used of it, and neither given nor deleted."""
    made = await world.service.volumes.create(owner, "data", 16 * MIB)
    away = replace(made.row, volume_id=make_volume_id(), name="away", server_id="another")
    await world.store.volumes.insert(away, 10, 10**12)
    assert (await world.service.volumes.get(owner, away.volume_id)).used_bytes is None
    with pytest.raises(VolumeElsewhere):
        await world.service.volumes.delete(owner, away.volume_id)
    with pytest.raises(VolumeElsewhere):
        await world.service.create(owner, NewEnvironment("e", "python", volumes=(VolumeWish("away", "/data"),)))
    assert await world.service.volumes.sweep() == 0


async def test_a_deletion_that_was_begun_goes_on(world: World, owner: Principal) -> None:
    """After a crash, or when the launcher was away; the name is free meanwhile."""
    made = await world.service.volumes.create(owner, "data", 16 * MIB)
    world.runtime.unavailable = True
    with pytest.raises(LauncherUnavailable):
        await world.service.volumes.delete(owner, made.row.volume_id)
    with pytest.raises(VolumeNotFound):
        await world.service.volumes.get(owner, made.row.volume_id)
    world.runtime.unavailable = False
    assert made.row.volume_id in world.runtime.volumes.sizes
    again = await world.service.volumes.create(owner, "data", 16 * MIB)
    assert await world.service.volumes.sweep() == 1
    assert list(world.runtime.volumes.sizes) == [again.row.volume_id]
    assert await world.store.volumes.find(made.row.volume_id) is None
    assert await world.service.volumes.sweep() == 0


async def test_volumes_of_a_user_who_is_gone(world: World, owner: Principal) -> None:
    """They go as soon as no environment of theirs has them any more."""
    made = await world.service.volumes.create(owner, "data", 16 * MIB)
    environment_id = await make(world, owner, _WISH)
    await world.store.users.delete(owner.user_id)
    assert await world.service.volumes.sweep() == 0
    assert world.runtime.volumes.sizes
    await world.service.delete(owner, environment_id)
    assert await world.service.volumes.sweep() == 1
    assert world.runtime.volumes.sizes == {}
    assert await world.store.volumes.find(made.row.volume_id) is None


async def test_nothing_is_mounted_before_it_is_written(
    world: World, owner: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume that is deleted at the same time would be made again by a sandbox that is about to end."""
    made = await world.service.volumes.create(owner, "data", 16 * MIB)
    insert = world.store.environments.insert

    async def later(*arguments: object) -> None:
        await world.service.volumes.delete(owner, made.row.volume_id)
        await insert(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(world.store.environments, "insert", later)
    with pytest.raises(VolumeNotFound):
        await world.service.create(owner, NewEnvironment("e", "python", volumes=(_WISH,)))
    await world.until(lambda: world.service.live_count == 0)
    assert (world.runtime.made, world.runtime.volumes.sizes) == ([], {})


async def test_a_row_that_cannot_be_written(world: World, owner: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made for it is taken away."""

    async def fails(*_arguments: object) -> None:
        raise StoreUnavailable("The database is away")

    monkeypatch.setattr(world.store.volumes, "insert", fails)
    with pytest.raises(StoreUnavailable):
        await world.service.volumes.create(owner, "data", 16 * MIB)
    assert world.runtime.volumes.sizes == {}


async def test_a_figure_that_is_not_known(world: World, owner: Principal) -> None:
    """A list is answered, whatever the launcher does."""
    made = await world.service.volumes.create(owner, "data", 16 * MIB)
    world.runtime.unavailable = True
    (view,) = (await world.service.volumes.list(owner, PageRequest())).items
    assert (view.row, view.used_bytes) == (made.row, None)


async def test_what_may_be_uploaded(world: World, owner: Principal) -> None:
    """As much as fits the largest of an environment's disks."""
    await world.service.volumes.create(owner, "data", 512 * MIB)
    plain, larger = await make(world, owner), await make(world, owner, _WISH)
    rows = [await world.service.get(owner, environment_id) for environment_id in (plain, larger)]
    assert [row.largest_disk_bytes for row in rows] == [rows[0].limits.disk_bytes, 512 * MIB]


@pytest.mark.parametrize(("environment_disk", "more"), [("memory", 1), ("image", 0)])
async def test_the_limit_of_memory(store: SqlStore, environment_disk: Literal["memory", "image"], more: int) -> None:
    """Files are part of it where they are kept in memory."""
    world = World(store, Settings(drain_grace_s=0.02, environment_disk=environment_disk))
    await world.service.start()
    owner = await somebody(world)
    metrics = await world.service.metrics(owner, await make(world, owner))
    limits = metrics.row.limits
    assert metrics.memory_limit_bytes == limits.memory_bytes + more * limits.disk_bytes
    await world.service.stop()
