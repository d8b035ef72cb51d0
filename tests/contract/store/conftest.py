"""The same tests on every database."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from sandgate.store.connections import Location
from sandgate.store.database import Database
from sandgate.store.identity_schema import database_identity
from sandgate.store.revisions import migrate
from sandgate.store.schema import metadata
from sandgate.store.sql_store import SqlStore
from tests.postgres import PostgresServer, postgres_server

__all__ = ["postgres_server"]


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database with tables, which tests share."""
    url = postgres_server.create_database("contract")
    migrate(url)
    yield url
    postgres_server.drop_database("contract")


@pytest.fixture
def clean_postgres_url(postgres_url: str) -> str:
    """The shared database, without rows."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        # The audit log loses no row otherwise.
        connection.execute("SET session_replication_role = replica")
        for table in reversed([table for table in metadata.sorted_tables if table is not database_identity]):
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table.name)))
    return postgres_url


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    """A file that is not there yet, in a folder that is not there yet."""
    return tmp_path / "state" / "sandgate.db"


KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_postgresql)]


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of the test's own, without tables."""
    yield postgres_server.create_database("empty")
    postgres_server.drop_database("empty")


@pytest.fixture(params=KINDS)
def empty_location(request: pytest.FixtureRequest) -> Location:
    """Where a database without tables is or can be made, once for each kind."""
    wanted = "sqlite_path" if request.param == "sqlite" else "empty_postgres_url"
    found: Location = request.getfixturevalue(wanted)
    return found


@pytest.fixture(params=KINDS)
def location(request: pytest.FixtureRequest) -> Location:
    """Where an empty database is or can be made, once for each kind."""
    wanted = "sqlite_path" if request.param == "sqlite" else "clean_postgres_url"
    found: Location = request.getfixturevalue(wanted)
    return found


@pytest.fixture
async def store(location: Location) -> AsyncIterator[SqlStore]:
    """An open store without rows."""
    opened = SqlStore(location)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def database(location: Location, store: SqlStore) -> AsyncIterator[Database]:
    """Other connections to the store's database, as another process would have them."""
    opened = Database(location, read_threads=1, checkpoint=False)
    await opened.open()
    yield opened
    await opened.close()
