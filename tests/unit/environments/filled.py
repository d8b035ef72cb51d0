"""Environments with a file, and what is made of them."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from sandgate.core.environment import Environment
from sandgate.core.ids import EnvironmentId
from sandgate.core.principal import Principal, User
from sandgate.core.snapshot import Snapshot
from sandgate.environments.base import NewEnvironment
from tests.unit.environments.conftest import World


async def known(world: World, principal: Principal) -> Principal:
    """Somebody whom the database knows, so that there can be snapshots of theirs."""
    now = world.clock.now()
    user = User(principal.user_id, f"n-{principal.user_id}", principal.role, "-", False, now, now)
    await world.store.users.insert(user)
    return principal


@pytest.fixture
async def owner(world: World) -> Principal:
    """Whose environments they are."""
    return await known(world, world.user)


async def filled(world: World, text: str = "kept", **wanted: Any) -> EnvironmentId:
    """An environment with a file."""
    new = replace(NewEnvironment("e", "python-3.9"), **wanted)
    row = await world.service.create(world.user, new)
    await write(world, row.environment_id, text)
    return row.environment_id


async def write(world: World, environment_id: EnvironmentId, text: str) -> None:
    """The file has this in it from now on."""

    async def body() -> AsyncIterator[bytes]:
        yield text.encode()

    await world.service.files.write(world.user, environment_id, "file", body(), overwrite=True, mode=None)


async def read(world: World, environment_id: EnvironmentId) -> str:
    """What the file has in it."""
    opened = await world.service.files.open(world.user, environment_id, "file")
    try:
        return (await opened.read(0, 100)).decode()
    finally:
        opened.close()


async def start(world: World, row: Snapshot, **wanted: Any) -> Environment:
    """An environment that begins with a snapshot."""
    new = replace(NewEnvironment("new", None, snapshot_id=row.snapshot_id), **wanted)
    return await world.service.create(world.user, new)


def files_of(world: World) -> list[str]:
    """What is in the folder of snapshots."""
    folder = world.snapshot_files._folder
    return sorted(os.listdir(folder)) if folder.is_dir() else []
