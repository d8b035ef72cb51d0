"""The client's calls about templates, against a server that is played."""

import json
from typing import Any

import httpx

from tests.unit.sdk.test_client import TIME, Played

TEMPLATE: dict[str, Any] = {
    "name": "data", "language": "python", "language_version": "3.11.9", "available": True, "unavailable_reason": None,
    "limits": {}, "isolation": "standard", "isolations": ["standard"], "languages": ["python"], "preload": ["numpy"],
    "template_id": "tpl-1", "owner_id": "user-1", "version": 2, "status": "ready", "status_reason": None,
    "base": "python-3.11", "public": False, "packages": ["numpy"], "digest": "d", "size_bytes": 5, "files": 1,
    "creation_time": TIME, "finished_at": TIME, "lock": "numpy==2",
}  # fmt: skip
EVENTS = 'id: 4\nevent: log\ndata: {"text":"one\\n"}\n\nid: 4\nevent: finished\ndata: {"status":"ready"}\n\n'


def test_a_template_is_built_followed_and_deleted() -> None:
    """Names go into paths as they are, versions included."""
    stream = httpx.Response(200, text=EVENTS, headers={"content-type": "text/event-stream"})
    listed = {"templates": [TEMPLATE], "next_cursor": None}
    answers = [
        httpx.Response(201, json=TEMPLATE), stream, httpx.Response(200, json=TEMPLATE),
        httpx.Response(200, json=listed),
        httpx.Response(200, json={"name": "data", "version": 2, "status": "ready", "log": "one\n"}),
        httpx.Response(200, json={"name": "data", "versions": [2], "status": "deleted"}),
    ]  # fmt: skip
    played = Played(answers)
    with played.client() as client:
        built = client.build_template({"name": "data", "base": "python-3.11"})
        assert (built.version, built.status, built.preload) == (2, "ready", ["numpy"])
        events = list(client.follow_template("data@2", "3"))
        assert [(event.kind, event.event_id) for event in events] == [("log", "4"), ("finished", "4")]
        assert client.get_template("data").lock == "numpy==2"
        assert client.list_templates("data") == [built]
        assert client.get_template_log("data") == "one\n"
        client.delete_template("data@2")
    assert json.loads(played.asked[0].content) == {"name": "data", "base": "python-3.11"}
    assert played.asked[1].headers["last-event-id"] == "3"
    paths = [request.url.raw_path.decode().rpartition("/templates")[2] for request in played.asked]
    assert paths == ["", "/data%402/events", "/data", "?name=data", "/data/log", "/data%402"]
