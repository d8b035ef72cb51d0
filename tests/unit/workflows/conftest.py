"""Engines on a store of the test's own."""

from collections.abc import AsyncIterator, Callable

import pytest

from sandgate.store.sql_store import SqlStore
from tests.sqlite_store import database_path, empty_database, store
from tests.unit.workflows.orchestra import Orchestra

__all__ = ["database_path", "empty_database", "store"]

MakeOrchestra = Callable[..., Orchestra]


@pytest.fixture
async def make_orchestra(store: SqlStore) -> AsyncIterator[MakeOrchestra]:
    """Processes on one database; all are stopped at the end, and none may have met a bug."""
    made: list[Orchestra] = []

    def make(**changes: object) -> Orchestra:
        made.append(Orchestra(store, **changes))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for orchestra in made:
        await orchestra.stop()
    assert [bug for orchestra in made for bug in orchestra.bugs] == []


@pytest.fixture
async def orchestra(make_orchestra: MakeOrchestra) -> Orchestra:
    """One process, started."""
    one = make_orchestra()
    await one.start()
    return one
