"""The client's calls about sessions, against a server that is played."""

import json
from typing import Any

import httpx

from tests.unit.sdk.test_client import TIME, Played
from tests.unit.sdk.test_environments import EXECUTION

SESSION: dict[str, Any] = {
    "session_id": "session-1", "environment_id": "env-1", "language": "python", "status": "idle", "status_reason": None,
    "creation_time": TIME, "last_used_at": TIME, "idle_timeout": None, "executions": 0, "queued": 0,
    "background": {"stdout": "", "stderr": "", "lost_bytes": 0},
}  # fmt: skip


def test_a_session_is_made_used_and_ended() -> None:
    """What was not given is not sent; results are as the server tells them."""
    ran = {**EXECUTION, "session_id": "session-1", "results": [{"text/plain": "1"}], "results_truncated": True}
    answers = [
        SESSION,
        {"sessions": [SESSION], "next_cursor": None},
        SESSION,
        ran,
        SESSION,
        SESSION,
        {"status": "ended"},
    ]
    played = Played([httpx.Response(200, json=answer) for answer in answers])
    with played.client() as client:
        made = client.create_session("env-1", env={"A": "b"}, idle_timeout_s=5, key="k")
        assert client.list_sessions("env-1") == [made]
        assert client.get_session("env-1", "session-1") == made
        shown = client.execute("env-1", "1", session_id="session-1")
        assert (shown.results, shown.results_truncated) == ([{"text/plain": "1"}], True)
        assert client.interrupt_session("env-1", "session-1") == client.restart_session("env-1", "session-1")
        client.delete_session("env-1", "session-1")
    assert json.loads(played.asked[0].content) == {"env": {"A": "b"}, "idle_timeout": 5}
    assert played.asked[0].headers["idempotency-key"] == "k"
    assert json.loads(played.asked[3].content) == {"code": "1", "session_id": "session-1"}
    asked = [(request.method, request.url.path.rpartition("env-1/")[2]) for request in played.asked[4:]]
    one = "sessions/session-1"
    assert asked == [("POST", f"{one}/interrupt"), ("POST", f"{one}/restart"), ("DELETE", one)]
