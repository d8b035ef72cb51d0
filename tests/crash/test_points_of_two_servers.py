"""``kill -9`` around the writes that only servers go through which share a database: the other one goes on."""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial

import pytest

from tests.crash.chaos import LEASE_S
from tests.crash.faults import FaultyServer
from tests.crash.invariants import check_rows
from tests.crash.workload import Client
from tests.postgres import PostgresServer, postgres_server

__all__ = ["postgres_server"]
pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_postgresql]
NAME = "points"
SETTINGS = {
    "SANDGATE_RUN_LEASE_S": f"{LEASE_S:g}", "SANDGATE_DRAIN_GRACE_S": "0.3",
    "SANDGATE_SPARE_SANDBOXES": "1", "SANDGATE_MOST_SPARE_SANDBOXES": "1",
}  # fmt: skip

Pair = tuple[FaultyServer, FaultyServer]


@pytest.fixture(scope="module")
def pair(postgres_server: PostgresServer) -> Iterator[Pair]:
    """Two servers on one database, for all tests."""
    settings = SETTINGS | {"SANDGATE_DATABASE_URL": postgres_server.create_database(NAME)}
    with FaultyServer(settings) as first, FaultyServer(settings) as second:
        yield first, second
    postgres_server.drop_database(NAME)


def _hit(pair: Pair, armed: FaultyServer, do: Callable[[str], object], *faults: str) -> tuple[str, Client]:
    """A run of the first server's that waits for its approval, and what was said of it, once the faults have happened.

    Where the first one was so slow that the other had taken its run before, there is another.
    """
    first = pair[0]
    for _try in range(5):
        first.revive()
        for server in pair:
            server.until_ready().close()
        with closing(Client(first)) as client:
            run_id = client.start(client.make("approval"))
            client.until_step(run_id, "ask", "waiting")
        armed.arm(*faults)
        do(run_id)
        with suppress(AssertionError):
            armed.until_fired(30)
            return run_id, client
        armed.disarm()
    raise AssertionError(f"nothing went wrong at {faults}")


def _approve(server: FaultyServer, run_id: str) -> None:
    with closing(Client(server)) as client:
        client.approve(run_id)


def _assert_ends(server: FaultyServer, run_id: str, said: Client, postgres: PostgresServer) -> None:
    """Approved, it comes to its end, whoever has it."""
    server.until_ready().close()
    with closing(Client(server)) as client:
        client.said.decided.add((run_id, "ask"))
        client.approve(run_id)
        assert client.until_over(run_id)["status"] == "succeeded"
        for each in (said, client):
            check_rows(postgres.url(NAME), each.said, lease_s=LEASE_S)


def test_killed_around_a_word_to_another_server(pair: Pair, postgres_server: PostgresServer) -> None:
    """It is said again until it is kept, and acted on once."""
    _first, second = pair
    faults = ("signals.insert.before=kill", "signals.insert.after=kill")
    run_id, said = _hit(pair, second, partial(_approve, second), *faults)
    _assert_ends(second, run_id, said, postgres_server)


def test_killed_around_a_take_over(pair: Pair, postgres_server: PostgresServer) -> None:
    """What was taken before the kill is the server's own when it comes back, and what was not is still free."""
    first, second = pair
    for point in ("runs.claim.free.before", "runs.claim.free.after"):
        run_id, said = _hit(pair, second, lambda _run_id: first.kill_all(), f"{point}=kill")
        _assert_ends(second, run_id, said, postgres_server)
    first.revive()


def test_killed_around_letting_go(pair: Pair, postgres_server: PostgresServer) -> None:
    """Of a server that ends, whether its last write was done or not: the other one has its runs when they are free."""
    first, second = pair
    for point in ("runs.release.before", "runs.release.after"):
        run_id, said = _hit(pair, first, lambda _run_id: first.stop_process(), f"{point}=kill")
        _assert_ends(second, run_id, said, postgres_server)
    first.revive()
