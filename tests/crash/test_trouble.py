"""Disk full, database locked, away or frozen, clock jumps, processes that stand still: R5, in short."""

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.crash.trouble import ON_POSTGRESQL, ON_SQLITE
from tests.crash.troubled_server import TroubledServer, Work
from tests.postgres import PostgresServer, postgres_server

__all__ = ["postgres_server"]
pytestmark = pytest.mark.needs_root_namespaces
SHORT_S = 0.3


@pytest.fixture(scope="module")
def server() -> Iterator[TroubledServer]:
    """One server that goes through all of it."""
    with TroubledServer() as running:
        yield running


@pytest.mark.parametrize("name", ON_SQLITE)
def test_trouble(name: str, server: TroubledServer) -> None:
    """A clear answer in time, nothing lost, and afterwards it goes on by itself."""
    with closing(Work.begin(server)) as work:
        ON_SQLITE[name](work, SHORT_S)
        work.check()


@pytest.mark.needs_postgresql
def test_trouble_on_postgresql(postgres_server: PostgresServer) -> None:
    """The same, with a database of its own that freezes, and one that is killed."""
    with ExitStack() as stack:
        url = postgres_server.create_database("trouble")
        stack.callback(postgres_server.drop_database, "trouble")
        server = stack.enter_context(TroubledServer({"SANDGATE_DATABASE_URL": url}))
        for trouble in ON_POSTGRESQL.values():
            with closing(Work.begin(server, postgres_server)) as work:
                trouble(work, SHORT_S)
                work.check()
