"""Processes are killed while runs depend on each other, or on a workspace."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.crash.server_process import GATEWAY, LAUNCHER, CrashServer, until

pytestmark = pytest.mark.needs_root_namespaces
WORKFLOWS = "/api/v1/orchestrator/workflows"
RUNS = "/api/v1/orchestrator/runs"
ASK: dict[str, Any] = {"name": "ask", "type": "approval"}


def _code(name: str, text: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "code_execution", "config": {"code": text}, **more}


def _make(server: CrashServer, *steps: dict[str, Any], **more: Any) -> str:
    with server.connect() as connection:
        return str(connection.expect(201, "POST", WORKFLOWS, {"name": "w", "steps": steps, **more})["workflow_id"])


def _begin(server: CrashServer, workflow_id: str) -> str:
    with server.connect() as connection:
        return str(connection.expect(200, "POST", f"{WORKFLOWS}/{workflow_id}/start")["run_id"])


def _look(server: CrashServer, run_id: str) -> dict[str, Any]:
    with server.connect() as connection:
        found: dict[str, Any] = connection.expect(200, "GET", f"{RUNS}/{run_id}")
        return found


def _runs_of(server: CrashServer, workflow_id: str) -> list[dict[str, Any]]:
    with server.connect() as connection:
        found: list[dict[str, Any]] = connection.expect(200, "GET", f"{RUNS}?workflow_id={workflow_id}")["runs"]
        return found


def _until(server: CrashServer, run_id: str, *statuses: str) -> dict[str, Any]:
    def seen() -> Any:
        with suppress(OSError, AssertionError, ConnectionError):
            run = _look(server, run_id)
            return run if run["status"] in statuses else None
        return None

    found: dict[str, Any] = until(seen, f"{run_id} is one of {statuses}")
    return found


def _approve(server: CrashServer, run_id: str) -> None:
    with server.connect() as connection:
        connection.expect(200, "POST", f"{RUNS}/{run_id}/steps/ask/approve", {})


def _kill_gateway(server: CrashServer) -> None:
    server.kill(GATEWAY)
    server.until_ready().close()


def _kill_server(server: CrashServer) -> None:
    server.kill_all()
    until(lambda: not server.listeners(), "the port is free")
    server.start()
    server.until_ready().close()


every_kill = pytest.mark.parametrize("kill", [_kill_gateway, _kill_server])


@every_kill
def test_a_killed_server_starts_no_second_run_below(server: CrashServer, kill: Callable[[CrashServer], None]) -> None:
    """Both runs go on, the one above waits for the same one below, and neither is told twice."""
    wait = "while os.path.exists(mark): time.sleep(0.01)"
    slow = f"import os, time\nmark = os.environ['SANDGATE_RUN_ID']\nopen(mark, 'w').close()\n{wait}\noutputs['n'] = 7"
    below = _make(server, _code("slow", slow), outputs={"n": "${{ steps.slow.outputs.n }}"})
    above = _make(server, {"name": "child", "type": "workflow", "config": {"workflow_id": below}})
    run_id = _begin(server, above)
    (child,) = until(lambda: [run for run in _runs_of(server, below) if run["status"] == "running"], "the child runs")
    until(lambda: server.holders_of(child["run_id"]), "the code runs")
    kill(server)
    server.release(child["run_id"])
    run = _until(server, run_id, "succeeded")
    assert [found["run_id"] for found in _runs_of(server, below)] == [child["run_id"]]
    (step,) = run["steps"]
    assert (step["attempts"], step["child_run_id"], step["outputs"]) == (1, child["run_id"], {"n": 7})
    # What ran below was taken up, too.
    assert _look(server, child["run_id"])["steps"][0]["attempts"] == 1


@every_kill
def test_turns_outlive_a_killed_server(server: CrashServer, kill: Callable[[CrashServer], None]) -> None:
    """No slot is lost and none is given twice; who waited is let in, in order."""
    workflow_id = _make(server, ASK, concurrency={"group": "g", "limit": 2})
    runs = [_begin(server, workflow_id) for _ in range(4)]
    for run_id in runs[:2]:
        _until(server, run_id, "waiting")
    kill(server)
    for run_id in runs[:2]:
        _until(server, run_id, "waiting")
    assert [_look(server, run_id)["status"] for run_id in runs] == ["waiting", "waiting", "pending", "pending"]
    _approve(server, runs[1])
    _until(server, runs[2], "waiting")
    assert _look(server, runs[3])["status"] == "pending"
    for run_id in (runs[0], runs[2]):
        _approve(server, run_id)
    _until(server, runs[3], "waiting")
    _approve(server, runs[3])
    until(lambda: {run["status"] for run in _runs_of(server, workflow_id)} == {"succeeded"}, "all have ended")


def _workspace(server: CrashServer) -> str:
    return _make(
        server,
        _code("write", "import os\nopen(os.environ['SANDGATE_RUN_ID'], 'w').close()"),
        ASK,
        _code("read", "import os\nprint(os.path.exists(os.environ['SANDGATE_RUN_ID']))"),
        workspace="run",
    )


def test_a_workspace_outlives_the_gateway(server: CrashServer) -> None:
    """The next gateway finds it, with its files, and ends it with its run."""
    run_id = _begin(server, _workspace(server))
    _until(server, run_id, "waiting")
    _kill_gateway(server)
    _until(server, run_id, "waiting")
    assert server.holders_of(run_id)
    _approve(server, run_id)
    run = _until(server, run_id, "succeeded")
    assert [(step["attempts"], step["stdout"]) for step in run["steps"]][2] == (1, "True\n")


def test_a_workspace_does_not_outlive_the_launcher(server: CrashServer) -> None:
    """The next attempt is lost with its files, and the one after it finds a new one."""
    run_id = _begin(server, _workspace(server))
    _until(server, run_id, "waiting")
    server.kill(LAUNCHER)
    server.until_ready().close()
    # The kernel ends the sandboxes of a launcher that died, but not before whoever waited for its death goes on.
    until(lambda: not server.holders_of(run_id), "its sandboxes have died, too")
    _approve(server, run_id)
    run = _until(server, run_id, "succeeded")
    assert (run["steps"][2]["attempts"], run["steps"][2]["stdout"]) == (2, "False\n")
