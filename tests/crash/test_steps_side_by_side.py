"""Steps that run where others do, in the workspace of a run or a named environment, while processes are killed."""

from collections.abc import Callable
from typing import Any

import pytest

from bench.sandgate_server import ENVIRONMENTS
from tests.crash.server_process import GATEWAY, CrashServer, until

pytestmark = pytest.mark.needs_root_namespaces
WORKFLOWS = "/api/v1/orchestrator/workflows"
RUNS = "/api/v1/orchestrator/runs"
SLEEP = "import os, time\nopen(os.environ['SANDGATE_RUN_ID'] + str(inputs['x']), 'w').close()\ntime.sleep(60)"


def _kill_gateway(server: CrashServer) -> None:
    server.kill(GATEWAY)
    server.until_ready().close()


def _kill_server(server: CrashServer) -> None:
    server.kill_all()
    until(lambda: not server.listeners(), "the port is free")
    server.start()
    server.until_ready().close()


def _ask(server: CrashServer, status: int, method: str, path: str, body: Any = None) -> Any:
    with server.connect() as connection:
        return connection.expect(status, method, path, body)


def _make_environment(server: CrashServer) -> str:
    return str(_ask(server, 201, "POST", ENVIRONMENTS, {"name": "e", "template": "python-3.11"})["environment_id"])


def _begin(server: CrashServer, steps: list[dict[str, Any]], **more: Any) -> str:
    made = _ask(server, 201, "POST", WORKFLOWS, {"name": "w", "steps": steps, **more})
    return str(_ask(server, 200, "POST", f"{WORKFLOWS}/{made['workflow_id']}/start")["run_id"])


def _look(server: CrashServer, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = _ask(server, 200, "GET", f"{RUNS}/{run_id}")
    return found


def _until_over(server: CrashServer, run_id: str) -> dict[str, Any]:
    def seen() -> Any:
        run = _look(server, run_id)
        return run["status"] not in ("pending", "running", "waiting") and run

    over: dict[str, Any] = until(seen, "the run is over")
    return over


def _step(name: str, text: str, environment_id: str | None = None, **more: Any) -> dict[str, Any]:
    config: dict[str, Any] = {"code": text, "inputs": {"x": more.pop("x", 0)}}
    if environment_id is not None:
        config["environment_id"] = environment_id
    return {"name": name, "type": "code_execution", "config": config, **more}


def _slowly(after: str = "") -> str:
    """Code that says so before the server is killed, and after it is released."""
    mark = "print('before', inputs['x'], flush=True)\nmark = os.environ['SANDGATE_RUN_ID'] + str(inputs['x'])"
    wait = "open(mark, 'w').close()\nwhile os.path.exists(mark): time.sleep(0.01)"
    return f"import os, time\n{mark}\n{wait}\nprint('after')\n{after}\noutputs['x'] = inputs['x']"


def _place(server: CrashServer, kind: str) -> tuple[str | None, dict[str, Any]]:
    """The environment that steps name, and what the workflow says."""
    return (_make_environment(server), {}) if kind == "named" else (None, {"workspace": "run"})


@pytest.mark.parametrize(("kind", "kill"), [("workspace", _kill_server), ("named", _kill_gateway)])
def test_steps_side_by_side_are_taken_up(server: CrashServer, kind: str, kill: Callable[[CrashServer], None]) -> None:
    """Items and steps that run at once in one sandbox all go on as the attempts that they are, with all they printed,
    and leave what they leave.
    """
    environment_id, more = _place(server, kind)
    leave = "open(os.environ['SANDGATE_ARTIFACTS'] + '/x', 'w').write('x' * 1000)"
    items = _step("items", _slowly(), environment_id, x="${{ item }}", foreach="${{ from_json('[1, 2]') }}", needs=[])
    steps = [_step("alone", _slowly(leave), environment_id, needs=[]), items, _step("last", "pass", environment_id)]
    run_id = _begin(server, steps, **more)
    for item in range(3):
        until(lambda item=item: server.holders_of(f"{run_id}{item}"), f"the code of {item} runs")  # type: ignore[misc]
    kill(server)
    for item in range(3):
        server.release(f"{run_id}{item}")
    run = _until_over(server, run_id)
    assert run["status"] == "succeeded"
    assert [row["attempts"] for row in run["steps"]] == [1, 1, 1]
    assert run["steps"][0]["stdout"] == "before 0\nafter\n"
    assert run["steps"][1]["outputs"] == [{"x": 1}, {"x": 2}]
    history = _ask(server, 200, "GET", f"{RUNS}/{run_id}/history?limit=200")["events"]
    assert "attempt_failed" not in {event["kind"] for event in history}
    (artifact,) = _ask(server, 200, "GET", f"{RUNS}/{run_id}/artifacts")["artifacts"]
    assert (artifact["step"], artifact["size_bytes"]) == ("alone", 1000)
    if environment_id is not None:
        rows = _ask(server, 200, "GET", f"{ENVIRONMENTS}/{environment_id}/executions")["executions"]
        assert [row["status"] for row in rows].count("completed") == 4
        assert "lost" not in {row["status"] for row in rows}


@pytest.mark.parametrize("kind", ["workspace", "named"])
def test_what_was_taken_up_ends_as_anything_else(server: CrashServer, kind: str) -> None:
    """By its time limit, or a cancel; the others go on, and nothing of it is left."""
    environment_id, more = _place(server, kind)
    # What a step has left is removed once its result is recorded, which may be while the next one begins.
    look = (
        "import os, time\nends_at = time.monotonic() + 20\nwhile True:\n"
        "    left = [name for name in os.listdir(os.environ.get('TMPDIR', '/tmp')) if '.step-' in name]\n"
        "    own = os.environ.get('SANDGATE_ARTIFACTS', '?').rpartition('/')[2]\n"
        "    if all(own in name for name in left) or time.monotonic() > ends_at: break\n    time.sleep(0.02)\n"
        "print(left)"
    )
    steps = [
        _step("short", SLEEP, environment_id, x=1, needs=[], timeout=2.5),
        _step("slow", _slowly(), environment_id, x=2, needs=[]),
        _step("look", look, environment_id, **{"if": "${{ always() }}", "needs": ["short", "slow"]}),
        {"name": "ask", "type": "approval", "if": "${{ always() }}"},
        _step("long", SLEEP, environment_id, x=3, **{"if": "${{ always() }}"}),
    ]
    run_id = _begin(server, steps, **more)
    for item in (1, 2):
        until(lambda item=item: server.holders_of(f"{run_id}{item}"), f"the code of {item} runs")  # type: ignore[misc]
    _kill_gateway(server)
    server.release(f"{run_id}2")
    until(lambda: _look(server, run_id)["steps"][0]["status"] == "timed_out", "it took too long")
    until(lambda: _look(server, run_id)["steps"][3]["status"] == "waiting", "the others have ended")
    rows = _look(server, run_id)["steps"]
    assert [row["attempts"] for row in rows[:3]] == [1, 1, 1]
    assert rows[1]["stdout"] == "before 2\nafter\n"
    # Its own folder is there, and nothing of the step that was killed.
    assert rows[2]["stdout"].count(".step-") == 2, rows[2]["stdout"]
    _ask(server, 200, "POST", f"{RUNS}/{run_id}/steps/ask/approve", {})
    until(lambda: _look(server, run_id)["steps"][4]["status"] == "running", "the last one runs")
    until(lambda: server.holders_of(f"{run_id}3"), "its code runs")
    _kill_gateway(server)
    assert _ask(server, 200, "POST", f"{RUNS}/{run_id}/cancel")["status"] == "cancelled"
    assert _look(server, run_id)["steps"][4]["attempts"] == 1
    if environment_id is not None:
        answer = _ask(server, 200, "POST", f"{ENVIRONMENTS}/{environment_id}/execute", {"code": look})
        assert answer["stdout"] == "[]\n"
