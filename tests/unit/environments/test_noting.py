"""Rows follow memory a little later, several at once, and before somebody looks for them by status."""

import asyncio

import pytest

from sandgate.core.page import PageRequest
from sandgate.core.states import EnvironmentStatus
from sandgate.environments import noting
from tests.unit.environments.conftest import World

_FIRST_PAGE = PageRequest()


async def test_what_is_made_together_is_noted_in_one_write(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are."""
    monkeypatch.setattr(noting, "PAUSE_S", 2.0)
    noted: list[int] = []
    write = world.store.environments.note_running

    async def count(names):  # type: ignore[no-untyped-def]
        noted.append(len(names))
        await write(names)

    monkeypatch.setattr(world.store.environments, "note_running", count)
    made = [await world.create_running() for _ in range(5)]
    await asyncio.gather(*(world.until_status(name, EnvironmentStatus.RUNNING) for name in made))
    assert sum(noted) == 5
    assert len(noted) < 5


async def test_whoever_looks_by_status_finds_what_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also right after it was made, and not as what is still being made."""
    monkeypatch.setattr(noting, "PAUSE_S", 1000.0)
    name = await world.create_running()
    for status, found in ((EnvironmentStatus.CREATING, []), (EnvironmentStatus.RUNNING, [name])):
        page = await world.service.list(world.user, _FIRST_PAGE, statuses=frozenset({status}))
        assert [row.environment_id for row in page.items] == found


async def test_what_a_killed_service_did_not_note_the_next_one_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start finds out what runs, and says so."""
    monkeypatch.setattr(noting, "PAUSE_S", 1000.0)
    name = await world.create_running()
    await world.restart()
    await world.service.list(world.user, _FIRST_PAGE, statuses=frozenset({EnvironmentStatus.RUNNING}))
    assert (await world.until_status(name, EnvironmentStatus.RUNNING)).is_live


async def test_what_has_ended_is_not_noted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is all that is written."""
    monkeypatch.setattr(noting, "PAUSE_S", 1000.0)
    name = await world.create_running()
    await world.service.delete(world.user, name)
    await world.service.list(world.user, _FIRST_PAGE, statuses=frozenset({EnvironmentStatus.RUNNING}))
    row = await world.store.environments.find(name)
    assert row is not None
    assert row.status is EnvironmentStatus.TERMINATED
