"""A server whose state is in PostgreSQL does all that one on SQLite does, over restarts of either."""

from collections.abc import Iterator

import pytest

from bench.sandgate_server import ENVIRONMENTS, execute
from tests.crash.server_process import GATEWAY, BackgroundExecution, CrashServer, until
from tests.crash.test_server_crashes import LOOP, assert_adopted, executions, make, running_is_recorded
from tests.postgres import PostgresServer, postgres_server

__all__ = ["postgres_server"]
pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_postgresql]
WORKFLOWS = "/api/v1/orchestrator/workflows"


@pytest.fixture
def server(postgres_server: PostgresServer) -> Iterator[CrashServer]:
    """A server on a database of its own."""
    url = postgres_server.create_database("served")
    with CrashServer({"SANDGATE_DATABASE_URL": url, "SANDGATE_DRAIN_GRACE_S": "0.3"}) as running:
        yield running
    postgres_server.drop_database("served")


def test_everything_is_in_postgresql(server: CrashServer, postgres_server: PostgresServer) -> None:
    """Environments, executions and runs; there is no SQLite beside it; a killed gateway finds all of it again."""
    environment_id = make(server)
    with server.connect() as connection:
        step = {"name": "one", "type": "code_execution", "config": {"code": "outputs['x'] = 1"}}
        made = connection.expect(201, "POST", WORKFLOWS, {"name": "w", "steps": [step]})
        run = connection.expect(200, "POST", f"{WORKFLOWS}/{made['workflow_id']}/start?wait=30", {})
        assert run["status"] == "succeeded"
        kept = execute(connection, environment_id, {"code": "print('on record')"})
    assert not list(server.state.glob("*.db*"))
    running = BackgroundExecution(server, environment_id, LOOP)
    until(lambda: running_is_recorded(server, environment_id), "the execution is recorded")
    server.kill(GATEWAY)
    assert running.join() is None
    assert_adopted(server, environment_id)
    with server.connect() as connection:
        rows = {row["execution_id"]: row for row in executions(connection, environment_id)}
        assert rows[kept["execution_id"]]["stdout"] == "on record\n"


def test_a_database_that_is_away(server: CrashServer, postgres_server: PostgresServer) -> None:
    """Is said so, with 503, and is found again when it is back, with what was in it."""
    environment_id = make(server)
    postgres_server.stop()
    try:
        with server.connect() as connection:
            refused = connection.request("POST", f"{ENVIRONMENTS}/{environment_id}/execute", {"code": "1"})
            assert (refused.status, refused.json()["error"]["code"]) == (503, "STORE_UNAVAILABLE")
            until(lambda: connection.request("GET", "/readyz").status == 503, "the probe says so")
    finally:
        postgres_server.start()
    with server.until_ready() as connection:
        answer = execute(connection, environment_id, {"code": "print(open('kept').read())"})
        assert answer["stdout"] == "still here\n"
