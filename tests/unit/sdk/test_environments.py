"""The client's calls about environments, against a server that is played."""

import json
from typing import Any

import httpx

from sandgate.sdk.files import file_path
from tests.unit.sdk.test_client import TIME, Played

ENVIRONMENT: dict[str, Any] = {
    "environment_id": "env-1", "name": "e", "template": "python", "status": "creating", "status_reason": None,
    "timeout": 60, "creation_time": TIME, "expires_at": TIME, "metadata": {}, "owner_id": "user-1",
}  # fmt: skip
EXECUTION = {
    "execution_id": "exec-1", "environment_id": "env-1", "status": "completed", "stdout": "x", "stderr": "",
    "stdout_truncated": False, "stderr_truncated": False, "started_at": TIME, "finished_at": TIME, "duration_ms": 1,
    "exit_code": 0, "error": None, "usage": {"cpu_ms": 1, "peak_memory_bytes": 2}, "timeout": 30.0,
}  # fmt: skip


def test_an_environment_is_made_got_and_ended() -> None:
    """What was not given is not sent."""
    ended = {"environment_id": "env-1", "status": "terminated"}
    played = Played(
        [httpx.Response(201, json=ENVIRONMENT), *(httpx.Response(200, json=a) for a in (ENVIRONMENT, ended))]
    )
    with played.client() as client:
        made = client.create_environment("e", "python", metadata={"a": "b"})
        assert client.get_environment("env-1") == made
        client.delete_environment("env-1")
    assert json.loads(played.asked[0].content) == {"name": "e", "template": "python", "metadata": {"a": "b"}}
    assert [request.method for request in played.asked] == ["POST", "GET", "DELETE"]


def test_code_goes_with_what_it_is_to_find() -> None:
    """Bytes as base64; an id with odd characters stays one part of the path."""
    played = Played([httpx.Response(200, json=EXECUTION)])
    with played.client() as client:
        ran = client.execute("env/1", "c", stdin="in", args=["a"], files={"t": "text", "b": b"\xff"}, key="k")
    assert (ran.stdout, ran.usage is not None and ran.usage.cpu_ms) == ("x", 1)
    (asked,) = played.asked
    assert asked.url.raw_path.endswith(b"/environments/env%2F1/execute")
    assert asked.headers["idempotency-key"] == "k"
    files = [{"path": "t", "content": "text"}, {"path": "b", "content_base64": "/w=="}]
    assert json.loads(asked.content) == {"code": "c", "stdin": "in", "args": ["a"], "files": files}


def test_the_path_of_a_file_is_that_of_no_other() -> None:
    """Steps are kept from being taken, and what the server refuses gets there as it is."""
    paths: dict[str | bytes, str] = {
        "a b/c.d": "a%20b/c.d", "./../x": "%2E/%2E%2E/x", "/etc/x": "/etc/x", "a\0b": "a%00b", b"\xff": "%FF",
    }  # fmt: skip
    base = "/api/v1/sandbox/environments/env-1/files/"
    assert {path: file_path("env-1", path) for path in paths} == {path: base + to for path, to in paths.items()}
