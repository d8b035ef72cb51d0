"""Processes are killed while runs are half-way: every run goes on without a hand, each step recorded once."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.client import Connection
from tests.crash.server_process import GATEWAY, CrashServer, until

pytestmark = pytest.mark.needs_root_namespaces
WORKFLOWS = "/api/v1/orchestrator/workflows"
RUNS = "/api/v1/orchestrator/runs"


@pytest.fixture
def server() -> Iterator[CrashServer]:
    """A server of the test's own."""
    with CrashServer({"SANDGATE_DRAIN_GRACE_S": "0.3"}) as running:
        yield running


def _step(name: str, text: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "code_execution", "config": {"code": text}, **more}


def _begin(server: CrashServer, steps: list[dict[str, Any]]) -> str:
    with server.connect() as connection:
        made = connection.expect(201, "POST", WORKFLOWS, {"name": "w", "steps": steps})
        return str(connection.expect(200, "POST", f"{WORKFLOWS}/{made['workflow_id']}/start")["run_id"])


def _look(connection: Connection, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = connection.expect(200, "GET", f"{RUNS}/{run_id}")
    return found


def _until_done(server: CrashServer, run_id: str, step: str, status: str = "succeeded") -> None:
    def seen() -> bool:
        with server.connect() as connection:
            return any(row["name"] == step and row["status"] == status for row in _look(connection, run_id)["steps"])

    until(seen, f"{step} is {status}")


def _until_over(server: CrashServer, run_id: str) -> dict[str, Any]:
    with server.until_ready() as connection:
        over: dict[str, Any] = until(
            lambda: (run := _look(connection, run_id))["status"] not in ("pending", "running", "waiting") and run,
            "the run is over",
        )
        return over


def _kill_gateway(server: CrashServer) -> None:
    server.kill(GATEWAY)


def _kill_server(server: CrashServer) -> None:
    server.kill_all()
    until(lambda: not server.listeners(), "the port is free")
    server.start()


@pytest.mark.parametrize("kill", [_kill_gateway, _kill_server])
def test_a_killed_server_loses_no_run(server: CrashServer, kill: Callable[[CrashServer], None]) -> None:
    """What had ended stays as it was, what ran is tried again, and the rest follows."""
    slow = "import os, time\nif os.environ['SANDGATE_ATTEMPT'] == '1': time.sleep(60)\nprint('again')"
    steps = [
        _step("first", "import uuid; outputs['id'] = str(uuid.uuid4())"),
        _step("slow", slow),
        _step("last", "pass"),
    ]
    run_id = _begin(server, steps)
    _until_done(server, run_id, "slow", "running")
    with server.connect() as connection:
        first = _look(connection, run_id)["steps"][0]
    kill(server)
    run = _until_over(server, run_id)
    assert run["status"] == "succeeded"
    assert run["steps"][0] == first
    assert [step["attempts"] for step in run["steps"]] == [1, 2, 1]
    assert run["steps"][1]["stdout"] == "again\n"


def test_what_a_step_left_is_there_once_the_step_has_succeeded(server: CrashServer) -> None:
    """Whoever was told of the result finds the artifacts after ``kill -9``; what was not yet taken comes again."""
    leave = "import os, time\nopen(os.environ['SANDGATE_ARTIFACTS'] + '/x', 'w').write('x' * 1_000_000)\n"
    slow = leave + "if os.environ['SANDGATE_ATTEMPT'] == '1': time.sleep(60)"
    run_id = _begin(server, [_step("quick", leave), _step("slow", slow)])
    _until_done(server, run_id, "slow", "running")
    _kill_server(server)
    run = _until_over(server, run_id)
    assert [step["status"] for step in run["steps"]] == ["succeeded", "succeeded"]
    with server.connect() as connection:
        found = connection.expect(200, "GET", f"{RUNS}/{run_id}/artifacts")["artifacts"]
        assert [(row["step"], row["attempt"]) for row in reversed(found)] == [("quick", 1), ("slow", 2)]
        for row in found:
            answer = connection.request("GET", f"{RUNS}/{run_id}/artifacts/{row['artifact_id']}")
            assert answer.body == b"x" * 1_000_000


def test_at_most_once_when_asked_for(server: CrashServer) -> None:
    """A step whose retry does not name ``lost`` is not started again."""
    once = _step("once", "import time; time.sleep(60)", retry={"max_attempts": 3, "on": ["failed"]})
    run_id = _begin(server, [once])
    _until_done(server, run_id, "once", "running")
    server.kill(GATEWAY)
    run = _until_over(server, run_id)
    assert (run["status"], run["steps"][0]["attempts"]) == ("failed", 1)
    assert run["steps"][0]["error"]["name"] == "Lost"


def test_approvals_and_timers_outlive_the_server(server: CrashServer) -> None:
    """A run that waits does so over a restart, and goes on when its time has come or somebody says so."""
    steps: list[dict[str, Any]] = [
        {"name": "ask", "type": "approval"},
        {"name": "nap", "type": "sleep", "needs": [], "config": {"seconds": 0.5}},
    ]
    run_id = _begin(server, steps)
    server.kill_all()
    until(lambda: not server.listeners(), "the port is free")
    server.start()
    with server.until_ready() as connection:
        connection.expect(200, "POST", f"{RUNS}/{run_id}/steps/ask/approve", {})
    run = _until_over(server, run_id)
    assert [step["status"] for step in run["steps"]] == ["succeeded", "succeeded"]
