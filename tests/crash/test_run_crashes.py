"""Processes are killed while runs are half-way: every run goes on without a hand, each step recorded once."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.client import Connection
from tests.crash.server_process import GATEWAY, LAUNCHER, CrashServer, until

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


def _until_it_runs(server: CrashServer, run_id: str) -> None:
    """A step's row says that it runs before its code does."""
    until(lambda: server.holders_of(run_id), "the code runs")


# By its name the sandbox is found.
_MARK = "mark = os.environ['SANDGATE_RUN_ID']\nopen(mark, 'w').close()"


def _slowly(before: str, after: str) -> str:
    """Code that does one thing at once and another when it is released."""
    wait = "while os.path.exists(mark): time.sleep(0.01)"
    return f"import os, time\n{before}\n{_MARK}\n{wait}\n{after}\n"


@pytest.mark.parametrize("kill", [_kill_gateway, _kill_server])
def test_a_step_that_runs_is_taken_up_and_not_started_again(
    server: CrashServer, kill: Callable[[CrashServer], None]
) -> None:
    """What had ended stays as it was, what ran goes on in its environment with all it printed, and the rest follows."""
    steps = [
        _step("first", "import uuid; outputs['id'] = str(uuid.uuid4())"),
        _step("slow", _slowly("print('before', os.getpid())", "print('after')\noutputs['n'] = 3")),
        _step("last", "outputs['n'] = inputs['n'] + 1"),
    ]
    steps[2]["config"]["inputs"] = {"n": "${{ steps.slow.outputs.n }}"}
    run_id = _begin(server, steps)
    _until_it_runs(server, run_id)
    with server.connect() as connection:
        first = _look(connection, run_id)["steps"][0]
    kill(server)
    server.until_ready().close()
    server.release(run_id)
    run = _until_over(server, run_id)
    assert run["status"] == "succeeded"
    assert run["steps"][0] == first
    assert [step["attempts"] for step in run["steps"]] == [1, 1, 1]
    assert run["steps"][1]["stdout"].splitlines()[1:] == ["after"]
    assert run["steps"][1]["stdout"].startswith("before ")
    assert run["steps"][2]["outputs"] == {"n": 4}


def test_a_step_that_cannot_be_taken_up_is_tried_again(server: CrashServer) -> None:
    """With the launcher every environment dies; the attempt is known to be dead, and the next one is made."""
    slow = _slowly("if os.environ['SANDGATE_ATTEMPT'] != '1': print('again'); raise SystemExit", "time.sleep(60)")
    run_id = _begin(server, [_step("first", "pass"), _step("slow", slow), _step("last", "pass")])
    _until_it_runs(server, run_id)
    server.kill(LAUNCHER)
    run = _until_over(server, run_id)
    # Sandboxes that wait have died with the others, without anybody knowing that yet, and cost no attempt.
    assert [step["attempts"] for step in run["steps"]] == [1, 2, 1]
    assert (run["status"], run["steps"][1]["stdout"]) == ("succeeded", "again\n")


def test_what_a_step_left_is_there_once_the_step_has_succeeded(server: CrashServer) -> None:
    """Whoever was told of the result finds the artifacts after ``kill -9``, and those of a step that was taken up."""
    leave = "open(os.environ['SANDGATE_ARTIFACTS'] + '/x', 'w').write('x' * 1_000_000)"
    run_id = _begin(server, [_step("quick", f"import os\n{leave}"), _step("slow", _slowly(leave, ""))])
    _until_it_runs(server, run_id)
    _kill_server(server)
    server.until_ready().close()
    server.release(run_id)
    run = _until_over(server, run_id)
    assert [step["status"] for step in run["steps"]] == ["succeeded", "succeeded"]
    with server.connect() as connection:
        found = connection.expect(200, "GET", f"{RUNS}/{run_id}/artifacts")["artifacts"]
        assert [(row["step"], row["attempt"]) for row in reversed(found)] == [("quick", 1), ("slow", 1)]
        for row in found:
            answer = connection.request("GET", f"{RUNS}/{run_id}/artifacts/{row['artifact_id']}")
            assert answer.body == b"x" * 1_000_000


def test_a_cancel_reaches_what_was_taken_up(server: CrashServer) -> None:
    """Cancelled means killed, whoever began it."""
    run_id = _begin(server, [_step("slow", f"import os, time\n{_MARK}\ntime.sleep(60)")])
    _until_it_runs(server, run_id)
    server.kill(GATEWAY)
    with server.until_ready() as connection:
        until(lambda: _look(connection, run_id)["steps"][0]["status"] == "running", "it was taken up")
        ended = connection.expect(200, "POST", f"{RUNS}/{run_id}/cancel")
        assert ended["status"] == "cancelled"
    until(lambda: not server.holders_of(run_id), "nothing of it runs")


def test_at_most_once_when_asked_for(server: CrashServer) -> None:
    """A step whose retry does not name ``lost`` is not started again."""
    once = _step("once", _slowly("", "time.sleep(60)"), retry={"max_attempts": 3, "on": ["failed"]})
    run_id = _begin(server, [once])
    _until_it_runs(server, run_id)
    server.kill(LAUNCHER)
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
    _until_done(server, run_id, "ask", "waiting")
    _kill_server(server)
    _until_done(server, run_id, "ask", "waiting")
    with server.until_ready() as connection:
        connection.expect(200, "POST", f"{RUNS}/{run_id}/steps/ask/approve", {})
    run = _until_over(server, run_id)
    assert [step["status"] for step in run["steps"]] == ["succeeded", "succeeded"]
