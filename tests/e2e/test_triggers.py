"""Schedules and webhooks against a real server: code that resists, and strangers who do."""

import http.client
import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import Server
from tests.e2e.waiting import LIMIT_S, until

pytestmark = [pytest.mark.needs_root_namespaces]
ORCHESTRATOR = "/api/v1/orchestrator"
RESISTS = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(1)"


def _workflow(connection: Connection, code: str, **more: Any) -> str:
    step = {"name": "work", "type": "code_execution", "config": {"code": code}}
    made = connection.expect(201, "POST", f"{ORCHESTRATOR}/workflows", {"name": "w", "steps": [step], **more})
    return str(made["workflow_id"])


def _runs(connection: Connection, workflow_id: str) -> list[dict[str, Any]]:
    answer = connection.expect(200, "GET", f"{ORCHESTRATOR}/runs?workflow_id={workflow_id}")
    return list(answer["runs"])


def _call(
    server: Server, path: str, body: bytes = b"{}", headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Call an address as a stranger."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_the_previous_run_is_killed_whatever_it_does(server: Server) -> None:
    """With ``cancel_previous`` each tick ends code that ignores signals, and no two runs are live at once."""
    with server.connect() as connection:
        workflow_id = _workflow(connection, RESISTS)
        wanted = {"workflow_id": workflow_id, "interval": 1, "overlap": "cancel_previous"}
        schedule_id = connection.expect(201, "POST", f"{ORCHESTRATOR}/schedules", wanted)["schedule_id"]

        def third() -> bool:
            runs = _runs(connection, workflow_id)
            assert sum(run["finished_at"] is None for run in runs) <= 1
            return len(runs) >= 3

        until(third, "three ticks have started a run each")
        connection.expect(200, "PATCH", f"{ORCHESTRATOR}/schedules/{schedule_id}", {"paused": True})

        def all_cancelled() -> bool:
            runs = _runs(connection, workflow_id)
            # A tick that was under way may have started one more.
            for run in runs:
                if run["finished_at"] is None:
                    connection.request("POST", f"{ORCHESTRATOR}/runs/{run['run_id']}/cancel")
            return {run["status"] for run in runs} == {"cancelled"}

        until(all_cancelled, "all were cancelled")


def test_one_delivery_at_the_same_time_many_times(server: Server) -> None:
    """Senders that lose patience all get the same run."""
    with server.connect() as connection:
        workflow_id = _workflow(connection, "pass", inputs={"event": {"type": "object"}})
        hook = connection.expect(201, "POST", f"{ORCHESTRATOR}/webhooks", {"workflow_id": workflow_id})
        answers: list[tuple[int, dict[str, Any]]] = []

        def deliver() -> None:
            answers.append(_call(server, hook["hook_path"], b"{}", {"Idempotency-Key": "order-7"}))

        threads = [threading.Thread(target=deliver) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        assert [status for status, _ in answers] == [200] * 12
        assert sorted(answer["status"] for _, answer in answers) == ["accepted"] + ["duplicate"] * 11
        (run,) = _runs(connection, workflow_id)
        assert {answer["run_id"] for _, answer in answers} == {run["run_id"]}


def test_strangers_learn_and_cost_nothing(server: Server) -> None:
    """Guessed addresses, tricks in paths, huge and deep bodies: refused, and the service goes on answering."""
    guesses = [f"whk_{'A' * 43}", "whk_", "..%2f..%2fetc", "%00", "A" * 4000, "whk_%C3%A9", "../hooks"]
    for guess in guesses:
        status, answer = _call(server, f"/api/v1/hooks/{guess}")
        assert status == 404, guess
        assert set(answer) == {"error"}
    status, _ = _call(server, f"/api/v1/hooks/{guesses[0]}", b"x" * 300_000)
    assert status == 413
    status, _ = _call(server, f"/api/v1/hooks/{guesses[0]}", b"[" * 200_000)
    assert status == 404
    with server.connect() as connection:
        connection.expect(200, "GET", "/readyz")
