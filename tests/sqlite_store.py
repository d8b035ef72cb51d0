"""Fixtures: the real store on SQLite, empty, in a few milliseconds."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandgate.store.revisions import migrate
from sandgate.store.sql_store import SqlStore


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with tables and without rows, to be copied."""
    path = tmp_path_factory.mktemp("empty") / "sandgate.db"
    migrate(path)
    return path


@pytest.fixture
def database_path(empty_database: Path, tmp_path: Path) -> Path:
    """A database file of the test's own."""
    return Path(shutil.copy(empty_database, tmp_path / "sandgate.db"))


@pytest.fixture
async def store(database_path: Path) -> AsyncIterator[SqlStore]:
    """An open store on the test's own database."""
    opened = SqlStore(database_path, read_threads=1, migrate=False)
    await opened.open()
    yield opened
    await opened.close()
