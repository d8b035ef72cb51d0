"""The whole HTTP layer in process: real store, authentication and use cases, a stand-in runtime, no sockets."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandgate.store.sql_store import SqlStore
from tests.sqlite_store import database_path, empty_database, store
from tests.unit.http.inner import Inner
from tests.unit.http.site import Site

__all__ = ["database_path", "empty_database", "store"]


@pytest.fixture
async def site(store: SqlStore, tmp_path: Path) -> AsyncIterator[Site]:
    """A started service with a user of each role."""
    made = await Site.open(store, tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def inner(site: Site) -> AsyncIterator[Inner]:
    """Makes servers."""
    made = Inner(site)
    yield made
    await made.close()
