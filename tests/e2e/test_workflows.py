"""Workflows against a real server: as the reference writes them, and what its promises mean."""

import time
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import Server
from tests.e2e.waiting import until

pytestmark = [pytest.mark.needs_root_namespaces]
WORKFLOWS = "/api/v1/orchestrator/workflows"
RUNS = "/api/v1/orchestrator/runs"
RESISTS = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(1)"


def code(name: str, text: str, *needs: str, **more: Any) -> dict[str, Any]:
    """A step with code, and its inputs."""
    config = {"code": text, **more.pop("config", {})}
    return {"name": name, "type": "code_execution", "needs": list(needs), "config": config, **more}


def start(connection: Connection, *steps: dict[str, Any], wait: float = 55, **more: Any) -> dict[str, Any]:
    """Make a workflow, start it and answer its status."""
    made = connection.expect(201, "POST", WORKFLOWS, {"name": "w", "steps": list(steps), **more})
    run = connection.expect(200, "POST", f"{WORKFLOWS}/{made['workflow_id']}/start?wait={wait}", {})
    status: dict[str, Any] = connection.expect(
        200, "GET", f"{WORKFLOWS}/{made['workflow_id']}/status?run_id={run['run_id']}"
    )
    return status


def _look(connection: Connection, run: dict[str, Any]) -> dict[str, Any]:
    seen: dict[str, Any] = connection.expect(200, "GET", f"{RUNS}/{run['run_id']}")
    return seen


def test_the_workflow_of_the_reference(server: Server) -> None:
    """Made, started and looked at with the words of the reference and nothing else."""
    step = {"name": "step1", "type": "code_execution", "config": {"code": 'print("Step 1")'}}
    with server.connect() as connection:
        made = connection.expect(201, "POST", WORKFLOWS, {"name": "example-workflow", "steps": [step]})
        assert made["steps"] == [step]
        path = f"{WORKFLOWS}/{made['workflow_id']}"
        started = connection.expect(200, "POST", f"{path}/start")
        assert started["workflow_id"] == made["workflow_id"]
        deadline = time.monotonic() + 60
        status = connection.expect(200, "GET", f"{path}/status")
        while status["status"] in ("pending", "running") and time.monotonic() < deadline:
            status = connection.expect(200, "GET", f"{path}/status")
        assert (status["status"], status["run_id"]) == ("succeeded", started["run_id"])
        (shown,) = status["steps"]
        assert (shown["name"], shown["status"], shown["stdout"]) == ("step1", "succeeded", "Step 1\n")
        assert made["workflow_id"] in [
            row["workflow_id"] for row in connection.expect(200, "GET", WORKFLOWS)["workflows"]
        ]


def test_data_fans_out_and_in(server: Server) -> None:
    """Outputs become inputs, over a list and back."""
    with server.connect() as connection:
        status = start(
            connection,
            code("rows", "outputs['rows'] = list(range(5))"),
            code(
                "square", "outputs['y'] = inputs['x'] ** 2", "rows",
                foreach="${{ steps.rows.outputs.rows }}", config={"inputs": {"x": "${{ item }}"}},
            ),
            code(
                "sum", "outputs['sum'] = sum(inputs['ys'])", "square",
                config={"inputs": {"ys": "${{ steps.square.outputs.y }}"}},
            ),
        )  # fmt: skip
    assert status["status"] == "succeeded"
    assert status["steps"][2]["outputs"] == {"sum": 30}
    assert [item["outputs"] for item in status["steps"][1]["items"]] == [{"y": n * n} for n in range(5)]


def test_failure_runs_what_tidies_up(server: Server) -> None:
    """After a failure what needs the step is skipped, and ``on_error`` and ``finally`` run; retries are counted."""
    after: dict[str, Any] = {
        "on_error": [code("tell", "print('oh')")],
        "finally": [code("tidy", "print('tidy')")],
    }
    with server.connect() as connection:
        status = start(
            connection,
            code("bad", "1 / 0", retry={"max_attempts": 3, "delay": 0.01}),
            code("after", "pass", "bad"),
            **after,
        )
    assert status["status"] == "failed"
    steps = {step["name"]: step for step in status["steps"]}
    assert {name: step["status"] for name, step in steps.items()} == {
        "bad": "failed", "after": "skipped", "tell": "succeeded", "tidy": "succeeded",
    }  # fmt: skip
    assert steps["bad"]["attempts"] == 3
    assert steps["bad"]["error"]["name"] == "ZeroDivisionError"


def test_cancel_kills(server: Server) -> None:
    """Code that does not listen is dead when the answer comes."""
    with server.connect() as connection:
        run = start(connection, code("stubborn", RESISTS), code("never", "pass", "stubborn"), wait=0)
        until(lambda: _look(connection, run)["steps"][0]["status"] == "running", "its code runs")
        cancelled = connection.expect(200, "POST", f"{RUNS}/{run['run_id']}/cancel")
        status = connection.expect(200, "GET", f"{RUNS}/{run['run_id']}")
    assert cancelled["status"] == status["status"] == "cancelled"
    assert [step["status"] for step in status["steps"]] == ["cancelled", "skipped"]


def test_time_limits_hold(server: Server) -> None:
    """Of a step, and of a whole run."""
    with server.connect() as connection:
        step = start(connection, code("slow", RESISTS, timeout=0.2))
        for timeout in (0.3, 3, 15):
            whole = start(connection, code("slow", RESISTS), timeout=timeout)
            if whole["steps"][0]["attempts"]:
                # Otherwise it was over before the step had begun, on a busy machine.
                break
    assert (step["status"], step["steps"][0]["status"]) == ("failed", "timed_out")
    assert (whole["status"], whole["steps"][0]["status"]) == ("timed_out", "timed_out")


def test_an_approval_is_waited_for(server: Server) -> None:
    """The run waits until somebody decides, and the next step sees who."""
    ask = {"name": "ask", "type": "approval"}
    seen = {"inputs": {"who": "${{ steps.ask.outputs.by }}"}}
    with server.connect() as connection:
        run = start(connection, ask, code("go", "print(inputs['who'])", "ask", config=seen), wait=0)
        until(lambda: _look(connection, run)["status"] == "waiting", "somebody is asked")
        connection.expect(200, "POST", f"{RUNS}/{run['run_id']}/steps/ask/approve", {"comment": "fine"})
        again = connection.request("POST", f"{RUNS}/{run['run_id']}/steps/ask/approve", {})
        assert again.status == 409
        until(lambda: _look(connection, run)["status"] not in ("waiting", "running"), "it is over")
        run = _look(connection, run)
    assert run["status"] == "succeeded"
    assert run["steps"][1]["stdout"] == "admin\n"


def test_secrets_are_not_handed_to_runs_below(server: Server) -> None:
    """Their inputs are kept as they are: refused in one answer, by name and by a variable that has one."""
    steps = [
        {"name": "a", "type": "workflow", "config": {"workflow_id": "self", "inputs": {"x": ["${{ secrets.A }}"]}}},
        {"name": "b", "type": "workflow", "config": {"workflow_id": "self", "inputs": {"x": "${{ env.E }}"}}},
    ]
    with server.connect() as connection:
        raw = {"name": "w", "steps": steps, "env": {"E": "${{ secrets.E }}"}}
        answer = connection.request("POST", WORKFLOWS, raw)
    assert answer.status == 400
    problems = answer.json()["error"]["details"]["problems"]
    assert [problem["pointer"] for problem in problems] == [
        f"/steps/{n}/config/inputs/x{end}" for n, end in ((0, "/0"), (1, ""))
    ]
