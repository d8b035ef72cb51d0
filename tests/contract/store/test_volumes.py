"""What every database promises about volumes."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sandgate.core.errors import VolumeNotFound
from sandgate.core.ids import UserId, make_user_id, make_volume_id
from sandgate.core.limits import MIB
from sandgate.core.page import PageRequest
from sandgate.core.states import EnvironmentStatus, sources_of
from sandgate.core.volume import MountedVolume, Volume
from sandgate.store.base import VolumeRefusal, VolumesHeld
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, STRANGE_TEXT, a_user, an_environment

_ROOM = 10, 10**15


async def _owner(store: SqlStore) -> UserId:
    user = a_user()
    await store.users.insert(user)
    return user.user_id


def a_volume(owner_id: UserId, name: str = "data", **changes: Any) -> Volume:
    """A new volume."""
    return replace(Volume(make_volume_id(), owner_id, name, 2**40, NOW, "one"), **changes)


def mounted(volume: Volume, path: str = "/data") -> MountedVolume:
    """Where an environment has it."""
    return MountedVolume(volume.volume_id, volume.name, path, True, volume.size_bytes)


async def test_a_volume_is_inserted_found_and_listed(store: SqlStore) -> None:
    """By its id, by its name, and in pages; others have their own of the same name."""
    owner, other = await _owner(store), await _owner(store)
    first, second = a_volume(owner, STRANGE_TEXT), a_volume(owner)
    foreign = a_volume(other, server_id=None)
    for volume in (first, second, foreign):
        assert await store.volumes.insert(volume, *_ROOM) is None
        assert await store.volumes.find(volume.volume_id) == volume
    assert await store.volumes.find(make_volume_id()) is None
    assert await store.volumes.find_named(owner, ["data", STRANGE_TEXT, "no"]) == {STRANGE_TEXT: first, "data": second}
    page = await store.volumes.list(owner, None, PageRequest(1))
    assert page.items == (second,)
    assert (await store.volumes.list(owner, None, PageRequest(1, page.next_before_id))).items == (first,)
    assert (await store.volumes.list(None, "data", PageRequest())).items == (foreign, second)
    assert await store.volumes.held(owner) == VolumesHeld(2, 2**41)
    assert await store.volumes.held(make_user_id()) == VolumesHeld(0, 0)


async def test_what_is_refused(store: SqlStore) -> None:
    """A name that is taken, too many, too large together, an owner who is gone; nothing is written then."""
    owner = await _owner(store)
    assert await store.volumes.insert(a_volume(owner), *_ROOM) is None
    assert await store.volumes.insert(a_volume(owner), *_ROOM) is VolumeRefusal.NAME_TAKEN
    assert await store.volumes.insert(a_volume(owner, "b"), 1, 10**15) is VolumeRefusal.TOO_MANY
    assert await store.volumes.insert(a_volume(owner, "b"), 2, 2**41 - 1) is VolumeRefusal.TOO_LARGE
    assert await store.volumes.insert(a_volume(make_user_id()), *_ROOM) is VolumeRefusal.NO_USER
    assert await store.volumes.held(owner) == VolumesHeld(1, 2**40)


async def test_many_at_once(store: SqlStore) -> None:
    """A user has as many as allowed, and no name twice, whoever asks at the same time."""
    owner = await _owner(store)
    made = [a_volume(owner, f"v{number % 8}", size_bytes=MIB) for number in range(16)]
    await asyncio.gather(*(store.volumes.insert(volume, 5, 10**15) for volume in made))
    there = (await store.volumes.list(owner, None, PageRequest())).items
    assert len(there) == len({volume.name for volume in there}) == 5


async def test_environments_have_volumes(store: SqlStore) -> None:
    """It is known which live ones have one; what they have is in their rows."""
    owner = await _owner(store)
    one, two = a_volume(owner, "one"), a_volume(owner, "two")
    for volume in (one, two):
        await store.volumes.insert(volume, *_ROOM)
    both = an_environment(owner_id=owner, volumes=(mounted(one), mounted(two, "/other")))
    single = an_environment(owner_id=owner, volumes=(mounted(one),))
    for row in (both, single, an_environment(owner_id=owner)):
        await store.environments.insert(row)
        assert await store.environments.find(row.environment_id) == row
    ids = [one.volume_id, two.volume_id]
    assert await store.volumes.find_users(ids) == {
        one.volume_id: [both.environment_id, single.environment_id],
        two.volume_id: [both.environment_id],
    }
    failed = EnvironmentStatus.FAILED
    await store.environments.transition(both.environment_id, failed, expected=sources_of(failed), at=NOW)
    assert await store.volumes.find_users(ids) == {one.volume_id: [single.environment_id]}
    await store.retention.prune_environments(NOW + timedelta(seconds=1), 10)
    assert await store.volumes.find_users(ids) == {one.volume_id: [single.environment_id]}


async def test_a_volume_is_deleted_in_two_steps(store: SqlStore) -> None:
    """Not while an environment has it; from the first step on none gets it, its name is free, and it still counts."""
    owner = await _owner(store)
    volume = a_volume(owner)
    await store.volumes.insert(volume, *_ROOM)
    row = an_environment(owner_id=owner, volumes=(mounted(volume),))
    await store.environments.insert(row)
    assert await store.volumes.begin_delete(volume.volume_id) == [row.environment_id]
    assert not await store.volumes.delete(volume.volume_id)
    assert await store.volumes.find(volume.volume_id) == volume
    failed = EnvironmentStatus.FAILED
    await store.environments.transition(row.environment_id, failed, expected=sources_of(failed), at=NOW)

    assert await store.volumes.begin_delete(volume.volume_id) == []
    assert await store.volumes.begin_delete(volume.volume_id) is None
    condemned = replace(volume, condemned=True)
    assert await store.volumes.find(volume.volume_id) == condemned
    assert await store.volumes.find_named(owner, ["data"]) == {}
    assert (await store.volumes.list(owner, None, PageRequest())).items == ()
    late = an_environment(owner_id=owner, volumes=(mounted(volume),))
    with pytest.raises(VolumeNotFound):
        await store.environments.insert(late)
    assert await store.environments.find(late.environment_id) is None
    assert await store.volumes.insert(a_volume(owner), *_ROOM) is None
    assert await store.volumes.held(owner) == VolumesHeld(2, 2**41)
    assert await store.volumes.list_condemned("one") == await store.volumes.list_condemned(None) == [condemned]
    assert await store.volumes.list_condemned("two") == []

    assert await store.volumes.delete(volume.volume_id)
    assert await store.volumes.find(volume.volume_id) is None
    assert await store.volumes.begin_delete(volume.volume_id) is None


async def test_of_a_deletion_and_an_environment_one_wins(store: SqlStore) -> None:
    """However they meet: either the environment is there and the volume too, or neither."""
    owner = await _owner(store)
    for number in range(10):
        volume = a_volume(owner, f"v{number}")
        await store.volumes.insert(volume, 20, 10**15)
        row = an_environment(owner_id=owner, volumes=(mounted(volume),))
        tried = await asyncio.gather(
            store.environments.insert(row), store.volumes.begin_delete(volume.volume_id), return_exceptions=True
        )
        there = await store.environments.find(row.environment_id) is not None
        assert tried[1] == ([row.environment_id] if there else [])
        assert isinstance(tried[0], VolumeNotFound) is not there


async def test_volumes_of_a_user_who_is_gone(store: SqlStore) -> None:
    """They are found, to be removed from the disk."""
    owner, other = await _owner(store), await _owner(store)
    volume = a_volume(owner)
    await store.volumes.insert(volume, *_ROOM)
    await store.volumes.insert(a_volume(other), *_ROOM)
    assert await store.volumes.list_condemned("one") == []
    await store.users.delete(owner)
    assert await store.volumes.list_condemned("one") == [replace(volume, condemned=True)]
