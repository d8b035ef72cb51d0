"""Two servers on one PostgreSQL: each steers what the other works on, and goes on with it when the other dies."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from bench.client import Connection
from tests.crash.server_process import LIMIT_S, CrashServer, until
from tests.e2e.event_client import EventClient, texts
from tests.e2e.test_run_events import RUNS, WORKFLOWS, begin, code
from tests.postgres import PostgresServer, postgres_server
from tests.stalls import Stalls

__all__ = ["postgres_server"]
pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_postgresql]
ENDLESS = "print('begun', flush=True)\nwhile True: pass"
TAKE_OVER_S = 15.0
# How much later another process may be on a busy machine.
BUSY_S = 5.0


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of the test's own."""
    yield postgres_server.create_database("shared")
    postgres_server.drop_database("shared")


@pytest.fixture
def servers(database: str) -> Iterator[tuple[CrashServer, CrashServer]]:
    """Two servers that know nothing of each other but the database."""
    settings = {"SANDGATE_DATABASE_URL": database, "SANDGATE_DRAIN_GRACE_S": "0.3"}
    with CrashServer(settings) as one, CrashServer(settings) as two:
        yield one, two


def _look(connection: Connection, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = connection.expect(200, "GET", f"{RUNS}/{run_id}")
    return found


def _until_step(server: CrashServer, run_id: str, step: str, status: str) -> None:
    def seen() -> bool:
        with server.connect() as connection:
            return any(row["name"] == step and row["status"] == status for row in _look(connection, run_id)["steps"])

    until(seen, f"{step} is {status}")


def _until_output(server: CrashServer, run_id: str) -> None:
    with EventClient(server.port, server.token, f"{RUNS}/{run_id}/events") as client:
        while (event := client.next()) is not None and event.name != "stdout":
            assert event.name != "end"


def test_either_server_steers_a_run(servers: tuple[CrashServer, CrashServer]) -> None:
    """Started on one; listed, followed, approved, cancelled and retried on the other, at once."""
    one, two = servers
    with one.connect() as first, two.connect() as second:
        run_id = begin(first, {"name": "ask", "type": "approval"}, code("work", ENDLESS))
        _until_step(two, run_id, "ask", "waiting")
        events = EventClient(two.port, two.token, f"{RUNS}/{run_id}/events")
        started = time.monotonic()
        approved = second.expect(200, "POST", f"{RUNS}/{run_id}/steps/ask/approve", {"comment": "from afar"})
        assert approved["steps"][0]["outputs"]["comment"] == "from afar"
        _until_output(one, run_id)
        cancelled = second.expect(200, "POST", f"{RUNS}/{run_id}/cancel")
        assert cancelled["status"] == "cancelled"
        assert time.monotonic() - started < LIMIT_S / 2
        with events:
            told = events.all()
        assert [event.name for event in told][-3:] == ["step_cancelled", "run_cancelled", "end"]
        # The line's end is a write of its own, which the kill may have been faster than.
        assert texts(told)["work", None, 1, "stdout"].strip() == "begun"
        retried = second.expect(200, "POST", f"{RUNS}/{run_id}/retry", {})
        assert retried["status"] in ("running", "waiting")
        _until_step(one, run_id, "work", "running")
        assert first.expect(200, "POST", f"{RUNS}/{run_id}/cancel")["status"] == "cancelled"
        history = first.expect(200, "GET", f"{RUNS}/{run_id}/history")["events"]
        assert [event["details"]["by"] for event in history if event["kind"] == "run_retried"] == ["admin"]


def _is_over(connection: Connection, run_id: str) -> bool:
    return _look(connection, run_id)["finished_at"] is not None


def _decide(server: CrashServer, run_id: str, word: str) -> tuple[str, int]:
    with server.connect() as connection:
        return word, connection.request("POST", f"{RUNS}/{run_id}/steps/ask/{word}", {}).status


def test_of_two_decisions_at_once_one_is_told_that_it_lost(servers: tuple[CrashServer, CrashServer]) -> None:
    """On the server that works on the run, and on the other one; what is answered 200 is what the run came to."""
    one, two = servers
    words = ("approve", "reject")
    with one.connect() as first, ThreadPoolExecutor(2) as pool:
        for places in ((one, one), (two, two), (one, two), (two, one)):
            run_id = begin(first, {"name": "ask", "type": "approval"})
            _until_step(one, run_id, "ask", "waiting")
            answers = dict(pool.map(_decide, places, (run_id, run_id), words))
            until(partial(_is_over, first, run_id), "it has ended")
            won = "approve" if _look(first, run_id)["status"] == "succeeded" else "reject"
            assert answers == {word: 200 if word == won else 409 for word in words}


def test_a_killed_servers_runs_go_on_elsewhere(servers: tuple[CrashServer, CrashServer]) -> None:
    """Within 15 s, with what had ended kept; a word that came meanwhile is heard by the one that goes on."""
    one, two = servers
    slow = "import os, time\nif os.environ['SANDGATE_ATTEMPT'] == '1': time.sleep(60)\nprint('again')"
    with one.connect() as first:
        kept = begin(first, code("first", "import uuid; outputs['id'] = str(uuid.uuid4())"), code("slow", slow))
        doomed = begin(first, code("endless", ENDLESS))
        _until_step(one, kept, "slow", "running")
        _until_step(one, doomed, "endless", "running")
        before = _look(first, kept)["steps"][0]
    one.kill_all()
    killed = time.monotonic()
    with two.connect() as second:
        with Stalls.noted() as stalls:
            assert second.expect(200, "POST", f"{RUNS}/{doomed}/cancel")["status"] == "cancelled"
            until(lambda: _look(second, kept)["status"] == "succeeded", "the run goes on")
            took_s = time.monotonic() - killed
        assert took_s < TAKE_OVER_S + BUSY_S + stalls.total_s
        run = _look(second, kept)
        assert run["steps"][0] == before
        assert [step["attempts"] for step in run["steps"]] == [1, 2]
        assert run["steps"][1]["stdout"] == "again\n"
        listed = second.expect(200, "GET", f"{RUNS}?status=succeeded&status=cancelled")["runs"]
        assert {row["run_id"] for row in listed} == {kept, doomed}
        made = second.expect(201, "POST", WORKFLOWS, {"name": "w", "steps": [code("a", "pass")]})
        second.expect(200, "POST", f"{WORKFLOWS}/{made['workflow_id']}/start?wait=20")
    # Its launcher waits for a gateway that takes the sandboxes over, or ends them.
    one.start()
