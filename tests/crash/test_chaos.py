"""Random kills under load, a few of them; ``scripts/chaos`` does as many as anybody likes."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.crash.chaos import LEASE_S, ChaosServer, play
from tests.crash.invariants import check_rows
from tests.crash.server_process import GATEWAY, until
from tests.crash.workload import WORKFLOWS, Client, step
from tests.postgres import PostgresServer, postgres_server

__all__ = ["postgres_server"]
pytestmark = pytest.mark.needs_root_namespaces
# How much later anything may be on a busy machine.
BUSY_S = 15.0
SETTINGS = {"SANDGATE_RUN_LEASE_S": f"{LEASE_S:g}", "SANDGATE_DRAIN_GRACE_S": "0.3"}
# The first attempt leaves a file by which its sandbox is found, and never ends; the next one says who it is.
ONCE = """
import os, time
if os.environ["SANDGATE_ATTEMPT"] == "1":
    open(os.environ["SANDGATE_RUN_ID"], "w").close()
    while True: time.sleep(1)
print("again")
"""


def test_random_kills() -> None:
    """One server on SQLite: gateway, launcher and all of it are killed, and the gateway is stopped for a while."""
    assert sum(play(6, seed=7).kills.values()) == 6


@pytest.mark.needs_postgresql
def test_random_kills_of_several_servers() -> None:
    """Two servers on one PostgreSQL, which is killed as well: they take over from each other."""
    assert sum(play(6, seed=11, servers=2, on_postgresql=True).kills.values()) == 6


@pytest.fixture
def pair(postgres_server: PostgresServer) -> Iterator[tuple[ChaosServer, ChaosServer]]:
    """Two servers on one database."""
    settings = SETTINGS | {"SANDGATE_DATABASE_URL": postgres_server.create_database("pair")}
    with ChaosServer(settings) as first, ChaosServer(settings) as second:
        yield first, second
    postgres_server.drop_database("pair")


def _begin_on(server: ChaosServer, client: Client) -> str:
    """A run whose code is under way on this server.

    Where it was so slow that another server had taken the run before, there is another run.
    """
    answer = client.ask("POST", WORKFLOWS, {"name": "w", "steps": [step("once", ONCE), step("after")]})
    for _try in range(5):
        run_id = client.start(answer.json()["workflow_id"])
        client.until_step(run_id, "once", "running", "succeeded")
        with suppress(AssertionError):
            until(lambda run_id=run_id: server.own_holders_of(run_id), "the code runs", BUSY_S)  # type: ignore[misc]
            return run_id
        client.cancel(run_id)
    raise AssertionError("the server does not keep its runs")


def _assert_done_twice(client: Client, run_id: str) -> None:
    run = client.until_over(run_id)
    assert run["status"] == "succeeded"
    assert [row["attempts"] for row in run["steps"]] == [2, 1]
    assert run["steps"][0]["stdout"] == "again\n"


@pytest.mark.needs_postgresql
def test_a_stopped_worker(pair: tuple[ChaosServer, ChaosServer], postgres_server: PostgresServer) -> None:
    """Another one takes its runs; its code is dead within two leases although nobody is there to kill it; and when
    it wakes up it writes nothing.
    """
    first, second = pair
    with closing(Client(first)) as client, closing(Client(second)) as other:
        run_id = _begin_on(first, client)
        gateway = first.process(GATEWAY)
        os.kill(gateway, signal.SIGSTOP)
        stopped_at = time.monotonic()
        try:
            until(lambda: not first.holders_of(run_id), "the code is dead", 2 * LEASE_S + BUSY_S)
            assert time.monotonic() - stopped_at > LEASE_S / 2
            _assert_done_twice(other, run_id)
            before = check_rows(postgres_server.url("pair"), other.said, lease_s=LEASE_S)
        finally:
            os.kill(gateway, signal.SIGCONT)
        until(lambda: first.runs_live() == 0, "it has let go")
        after = check_rows(postgres_server.url("pair"), other.said, lease_s=LEASE_S)
        assert [rows.history for rows in after] == [rows.history for rows in before]
        _assert_done_twice(client, run_id)


@pytest.mark.needs_postgresql
def test_a_killed_worker(pair: tuple[ChaosServer, ChaosServer], postgres_server: PostgresServer) -> None:
    """With everything of it but its launcher: another one goes on, and the code that was left is dead by then."""
    first, second = pair
    with closing(Client(first)) as client:
        run_id = _begin_on(first, client)
    first.kill_all()
    with closing(Client(second)) as other:
        _assert_done_twice(other, run_id)
        until(lambda: not first.holders_of(run_id), "the code is dead", 2 * LEASE_S + BUSY_S)
        check_rows(postgres_server.url("pair"), other.said, lease_s=LEASE_S)
    until(lambda: not first.listeners(), "the port is free")
    first.start()
