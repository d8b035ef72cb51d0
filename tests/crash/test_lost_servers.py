"""Servers that stop, die for good or have a wrong clock: what they worked on goes on, once."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from typing import Any

import pytest

from tests.crash.chaos import LEASE_S, ChaosServer
from tests.crash.faults import FaultyServer
from tests.crash.faulty_server import CLOCK_SKEW
from tests.crash.invariants import check_rows
from tests.crash.server_process import GATEWAY, until
from tests.crash.workload import RUNS, SCHEDULES, WORKFLOWS, Client, step
from tests.postgres import PostgresServer, postgres_server

__all__ = ["postgres_server"]
pytestmark = pytest.mark.needs_root_namespaces
SETTINGS = {
    "SANDGATE_RUN_LEASE_S": f"{LEASE_S:g}", "SANDGATE_DRAIN_GRACE_S": "0.3",
    "SANDGATE_SPARE_SANDBOXES": "1", "SANDGATE_MOST_SPARE_SANDBOXES": "1",
}  # fmt: skip
UNHELD_S = 2 * LEASE_S
# How much later anything may be on a busy machine.
BUSY_S = 15.0
# The first attempt has a file open by which its sandbox and itself are found, and never ends; the next one says what it
# finds.
ONCE = """
import os, time
if os.environ["SANDGATE_ATTEMPT"] == "1":
    mark = open(os.environ["SANDGATE_RUN_ID"], "w")
    while True: time.sleep(1)
print("again", os.path.exists("f"))
"""
WRITE = step("write", "open('f', 'w').close()")
SKEWS_S = (-5, 5)
# A server that the machine stops for a while does not lose its runs by that.
LONG_LEASE_S = 4.0


def _start(client: Client, *steps: dict[str, Any], **more: Any) -> str:
    answer = client.ask("POST", WORKFLOWS, {"name": "w", "steps": list(steps), **more})
    return client.start(answer.json()["workflow_id"])


def _lost_attempts(client: Client, run_id: str) -> list[tuple[str, str]]:
    events = client.ask("GET", f"{RUNS}/{run_id}/history?limit=200").json()["events"]
    return [(event["step"], event["details"]["reason"]) for event in events if event["kind"] == "attempt_failed"]


def test_a_gateway_that_is_stopped_past_its_lease() -> None:
    """On SQLite nobody else can take its runs: what ran is dead, and it goes on itself, with one result for each step.

    Files in a workspace are still there.
    """
    with ChaosServer(SETTINGS) as server, closing(Client(server)) as client:
        own = _start(client, step("once", ONCE), step("after"))
        shared = _start(client, WRITE, step("once", ONCE), workspace="run")
        for run_id in (own, shared):
            until(lambda run_id=run_id: server.users_of(run_id), "the code runs")  # type: ignore[misc]
        gateway = server.process(GATEWAY)
        os.kill(gateway, signal.SIGSTOP)
        try:
            for run_id in (own, shared):
                # The workspace is still there, but what ran in it is not.
                until(lambda run_id=run_id: not server.users_of(run_id), "what nobody holds has ended")  # type: ignore[misc]
        finally:
            os.kill(gateway, signal.SIGCONT)
        assert [row["attempts"] for row in client.until_over(own)["steps"]] == [2, 1]
        run = client.until_over(shared)
        assert (run["status"], run["steps"][1]["attempts"], run["steps"][1]["stdout"]) == (
            "succeeded",
            2,
            "again True\n",
        )
        assert _lost_attempts(client, own) == _lost_attempts(client, shared) == [("once", "lost")]
        check_rows(server.database, client.said, lease_s=LEASE_S)


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of the test's own."""
    yield postgres_server.create_database("lost")
    postgres_server.drop_database("lost")


def _begin_in_workspaces(server: ChaosServer) -> tuple[str, str]:
    """Two runs that have a workspace on this server: code works in that of one, the other waits for its approval.

    Where it was so slow that another server had taken one of them before, there are two more.
    """
    ask = {"name": "ask", "type": "approval"}
    read = step("read", "import os\nprint(os.path.exists('f'))")
    for _try in range(5):
        with closing(Client(server)) as client:
            working = _start(client, WRITE, step("once", ONCE), workspace="run")
            waiting = _start(client, WRITE, ask, read, workspace="run")
            client.until_step(waiting, "ask", "waiting")
            client.until_step(working, "once", "running", "succeeded")
            with suppress(AssertionError):
                until(lambda working=working: server.own_holders_of(working), "the code runs", BUSY_S)  # type: ignore[misc]
                if not [*_lost_attempts(client, working), *_lost_attempts(client, waiting)]:
                    return working, waiting
            for run_id in (working, waiting):
                client.cancel(run_id)
    raise AssertionError("the server does not keep its runs")


@pytest.mark.needs_postgresql
def test_workspaces_of_a_server_that_died_for_good(database: str, postgres_server: PostgresServer) -> None:
    """Its launcher ends them within two leases; the runs go on elsewhere, in new ones, and their history says why."""
    settings = SETTINGS | {"SANDGATE_DATABASE_URL": database}
    with ChaosServer(settings) as first, ChaosServer(settings) as second:
        working, waiting = _begin_in_workspaces(first)
        first.kill_all()
        killed_at = time.monotonic()
        with closing(Client(second)) as other:
            until(lambda: not first.holders_of(working), "the code is dead", UNHELD_S + BUSY_S)
            first.until_few_sandboxes(1)
            assert time.monotonic() - killed_at < UNHELD_S + 2 * BUSY_S
            run = other.until_over(working)
            assert (run["status"], run["steps"][1]["stdout"]) == ("succeeded", "again False\n")
            assert _lost_attempts(other, working) == [("once", "lost")]
            other.approve(waiting)
            run = other.until_over(waiting)
            assert (run["status"], run["steps"][2]["stdout"]) == ("succeeded", "False\n")
            assert _lost_attempts(other, waiting) == [("read", "lost")]
            check_rows(postgres_server.url("lost"), other.said, lease_s=LEASE_S)
        until(lambda: not first.listeners(), "the port is free")
        first.start()


@pytest.mark.needs_postgresql
def test_servers_whose_clocks_are_wrong(database: str, postgres_server: PostgresServer) -> None:
    """Neither takes the other's runs, and each tick of a schedule starts one run: the database's clock decides."""
    settings = SETTINGS | {"SANDGATE_DATABASE_URL": database, "SANDGATE_RUN_LEASE_S": f"{LONG_LEASE_S:g}"}
    with ExitStack() as stack:
        servers = [stack.enter_context(FaultyServer(settings | {CLOCK_SKEW: str(skew)})) for skew in SKEWS_S]
        clients = [stack.enter_context(closing(Client(server))) for server in servers]
        # Longer than a lease, and shorter than the clocks are apart.
        slow = step("slow", f"import time\ntime.sleep({1.5 * LONG_LEASE_S})")
        runs = [_start(client, slow, step("after")) for client in clients]
        ticking = clients[0].make("hooked")
        wanted = {"workflow_id": ticking, "interval": 1, "catch_up": "all", "catch_up_limit": 100}
        schedule = clients[0].ask("POST", SCHEDULES, wanted).json()["schedule_id"]
        for client, run_id in zip(clients, runs, strict=True):
            run = client.until_over(run_id)
            assert (run["status"], [row["attempts"] for row in run["steps"]]) == ("succeeded", [1, 1])
        until(lambda: len(_ticks(clients[0], ticking)) > SKEWS_S[1], "the schedule ticks")
        servers[1].kill(GATEWAY)
        servers[1].until_ready().close()
        clients[0].ask("PATCH", f"{SCHEDULES}/{schedule}", {"paused": True})
        until(lambda: clients[0].live_runs() == [], "every run is over")
        apart = [
            (later - earlier).total_seconds() for earlier, later in itertools.pairwise(_ticks(clients[0], ticking))
        ]
        assert apart == [1.0] * len(apart)
        check_rows(postgres_server.url("lost"), clients[0].said, lease_s=LONG_LEASE_S)


def _ticks(client: Client, workflow_id: str) -> list[datetime]:
    rows = client.ask("GET", f"{RUNS}?workflow_id={workflow_id}&limit=200").json()["runs"]
    return sorted(datetime.fromisoformat(row["trigger"]["at"]) for row in rows)
