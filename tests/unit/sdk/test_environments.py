"""The client's calls about environments, against a server that is played."""

import json
from typing import Any

import httpx
import pytest

from sandgate.sdk.files import file_path
from tests.unit.sdk.test_client import TIME, Played, refusal

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


def test_an_environment_is_paused_and_resumed() -> None:
    """And made so that it is paused by itself."""
    played = Played([httpx.Response(201 if not number else 200, json=ENVIRONMENT) for number in range(3)])
    with played.client() as client:
        client.create_environment("e", "python", on_timeout="pause", idle_timeout_s=0)
        client.pause_environment("env-1")
        client.resume_environment("env-1")
    made = json.loads(played.asked[0].content)
    assert made == {"name": "e", "template": "python", "on_timeout": "pause", "idle_timeout": 0}
    paths = [request.url.path.rpartition("/")[2] for request in played.asked]
    assert paths == ["environments", "pause", "resume"]


def test_hosts_are_allowed_and_connections_told() -> None:
    """None takes the network away, which leaving it out would not."""
    connection = {
        "started_at": TIME, "host": "a.example", "port": 443, "verdict": "allowed", "reason": "closed",
        "sent_bytes": 1, "received_bytes": 2, "duration_ms": 3,
    }  # fmt: skip
    totals = {"allowed": 1, "denied": 0, "failed": 0, "open": 0, "sent_bytes": 1, "received_bytes": 2}
    rules = {"allow": ["a.example"]}
    told = {"environment_id": "env-1", "network": rules, "totals": totals, "connections": [connection]}
    changed = {**ENVIRONMENT, "network": rules}
    played = Played([httpx.Response(200, json=each) for each in (changed, told, ENVIRONMENT)])
    with played.client() as client:
        made = client.create_environment("e", "python", allow=["a.example"])
        network = client.get_network("env-1")
        client.set_network("env-1", None)
    assert made.network == network.network
    assert network.connections[0].host == "a.example"
    assert json.loads(played.asked[0].content)["network"] == rules
    assert json.loads(played.asked[2].content) == {"network": None}


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


def test_an_environment_is_there_for_a_block() -> None:
    """Deleted at its end, also when that goes wrong; one that has ended meanwhile is no trouble."""
    gone = refusal(404, "ENVIRONMENT_NOT_FOUND")
    played = Played(
        [
            httpx.Response(201, json=ENVIRONMENT),
            httpx.Response(200, json={}),
            httpx.Response(201, json=ENVIRONMENT),
            gone,
        ]
    )
    with played.client() as client:
        with pytest.raises(KeyError), client.opened_environment("e", "python", timeout_s=9, key="k") as environment:
            raise KeyError(environment.name)
        with client.opened_environment("e"):
            pass
    assert [asked.method for asked in played.asked] == ["POST", "DELETE"] * 2
    assert json.loads(played.asked[0].content) == {"name": "e", "template": "python", "timeout": 9}
    assert played.asked[0].headers["idempotency-key"] == "k"


def test_folders_are_sent_searched_watched_and_linked() -> None:
    """What was not asked for is not sent; pages are asked for one after the other."""
    match = {"path": "a", "name": "a", "encoded_path": "a", "kind": "file", "line_number": 1, "column": 1, "line": "x",
             "cut": False}  # fmt: skip
    link = {"link_path": "/api/v1/links/x.y", "method": "PUT", "path": "a", "expires_at": TIME}
    stream = {"content-type": "text/event-stream"}
    played = Played(
        [
            httpx.Response(200, json={"path": "in", "files": 1, "folders": 2, "links": 3, "size_bytes": 4}),
            httpx.Response(200, content=b"the archive"),
            httpx.Response(200, json={"matches": [match], "incomplete": "limit", "next_cursor": "61-1"}),
            httpx.Response(200, json={"matches": [match], "incomplete": None, "next_cursor": None}),
            httpx.Response(200, content=b'id: 1\nevent: started\ndata: {"path":"."}\n\n', headers=stream),
            httpx.Response(201, json=link),
        ]
    )
    with played.client() as client:
        unpacked = client.write_archive("env-1", "in", b"archive", "zip", overwrite=False)
        assert (unpacked.files, unpacked.links, unpacked.size_bytes) == (1, 3, 4)
        with client.open_archive("env-1", "in", "tar.gz") as pieces:
            assert b"".join(pieces) == b"the archive"
        found = list(client.search_files("env-1", name="*.py", content="x", ignore_case=True))
        assert [each.line_number for each in found] == [1, 1]
        assert [event.kind for event in client.watch_files("env-1", recursive=False)] == ["started"]
        assert client.create_link("env-1", "a", "PUT", max_bytes=5).link_path == "/api/v1/links/x.y"
    assert [str(request.url.raw_path, "ascii").partition("/env-1")[2] for request in played.asked] == [
        "/archive?path=in&format=zip&overwrite=false",
        "/archive?path=in&format=tar.gz",
        "/search?limit=1000&path=.&name=%2A.py&content=x&ignore_case=true",
        "/search?limit=1000&path=.&name=%2A.py&content=x&ignore_case=true&cursor=61-1",
        "/watch?path=.&recursive=false",
        "/links",
    ]
    assert json.loads(played.asked[5].content) == {"path": "a", "method": "PUT", "max_bytes": 5}


def test_environments_are_listed_page_by_page() -> None:
    """Those that were asked for, with labels in their own form."""
    pages = [{"environments": [ENVIRONMENT], "next_cursor": "c"}, {"environments": [ENVIRONMENT], "next_cursor": None}]
    played = Played([httpx.Response(200, json=page) for page in pages])
    with played.client() as client:
        found = list(client.list_environments(statuses=["failed", "expired"], metadata={"team": "a b"}, name="e"))
    assert [each.environment_id for each in found] == ["env-1", "env-1"]
    query = "limit=200&status=failed&status=expired&metadata.team=a+b&name=e"
    assert [str(request.url.raw_path, "ascii").partition("?")[2] for request in played.asked] == [
        query, f"{query}&cursor=c",
    ]  # fmt: skip
