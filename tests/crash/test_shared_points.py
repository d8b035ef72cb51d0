"""``kill -9`` around the writes that only servers go through which share a database: the other one goes on."""

from collections.abc import Iterator
from contextlib import closing

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


def _held_run(pair: Pair, *faults: str) -> tuple[str, Client]:
    """A run that the first server holds until somebody approves it, with the second one ready, and armed."""
    first, second = pair
    first.until_ready().close()
    second.until_ready().close()
    with closing(Client(first)) as client:
        workflow_id = client.make("approval")
        while True:
            run_id = client.start(workflow_id)
            client.until_step(run_id, "ask", "waiting")
            if faults:
                second.arm(*faults)
            # Unless it has been so slow that the other one took it.
            if first.runs_live():
                return run_id, client


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
    """It is said again until it was heard, and acted on once."""
    second = pair[1]
    run_id, said = _held_run(pair, "signals.insert.before=kill", "signals.insert.after=kill")
    _assert_ends(second, run_id, said, postgres_server)
    assert second.has_fired


def test_killed_around_a_take_over(pair: Pair, postgres_server: PostgresServer) -> None:
    """What was taken before the kill is the server's own when it comes back, and what was not is still free."""
    first, second = pair
    for point in ("runs.claim.free.before", "runs.claim.free.after"):
        run_id, said = _held_run(pair, f"{point}=kill")
        first.kill_all()
        second.until_fired()
        _assert_ends(second, run_id, said, postgres_server)
        first.revive()


def test_killed_around_letting_go(pair: Pair, postgres_server: PostgresServer) -> None:
    """Of a server that ends, whether its last write was done or not: the other one has its runs when they are free."""
    first, second = pair
    for point in ("runs.release.before", "runs.release.after"):
        run_id, said = _held_run(pair)
        first.arm(f"{point}=kill")
        first.stop_process()
        assert first.has_fired
        _assert_ends(second, run_id, said, postgres_server)
        first.revive()
