"""The client's calls about snapshots and copies, against a server that is played."""

import json
from typing import Any

import httpx

from tests.unit.sdk.test_client import TIME, Played
from tests.unit.sdk.test_environments import ENVIRONMENT

SNAPSHOT: dict[str, Any] = {
    "snapshot_id": "snap-1", "environment_id": "env-1", "name": "s", "template": "python", "isolation": "standard",
    "creation_time": TIME, "size_bytes": 10240, "files": 1, "skipped": 0, "consistent": True, "metadata": {"a": "b"},
    "owner_id": "user-1",
}  # fmt: skip


def test_a_snapshot_is_made_got_begun_from_and_deleted() -> None:
    """What was not given is not sent."""
    deleted = {"snapshot_id": "snap-1", "deleted": True}
    answers = ((201, SNAPSHOT), (200, SNAPSHOT), (201, {**ENVIRONMENT, "snapshot_id": "snap-1"}), (200, deleted))
    played = Played([httpx.Response(status, json=answer) for status, answer in answers])
    with played.client() as client:
        made = client.create_snapshot("env-1", name="s", metadata={"a": "b"}, key="k")
        assert client.get_snapshot("snap-1") == made
        assert client.create_environment("new", snapshot_id="snap-1").snapshot_id == "snap-1"
        client.delete_snapshot("snap-1")
    assert [json.loads(request.content) for request in played.asked if request.content] == [
        {"name": "s", "metadata": {"a": "b"}},
        {"name": "new", "snapshot_id": "snap-1"},
    ]
    assert played.asked[0].headers["idempotency-key"] == "k"
    assert [request.method for request in played.asked] == ["POST", "GET", "POST", "DELETE"]


def test_snapshots_are_listed_page_by_page() -> None:
    """With what was asked for on each page."""
    pages = [{"snapshots": [SNAPSHOT], "next_cursor": "c"}, {"snapshots": [SNAPSHOT], "next_cursor": None}]
    played = Played([httpx.Response(200, json=page) for page in pages])
    with played.client() as client:
        assert len(list(client.list_snapshots(name="s"))) == 2
    asked = [dict(request.url.params) for request in played.asked]
    assert asked == [{"limit": "200", "name": "s"}, {"limit": "200", "name": "s", "cursor": "c"}]


def test_copies_are_made() -> None:
    """As many as asked for, each a record of its own."""
    copy = {**ENVIRONMENT, "forked_from": "env-1"}
    played = Played([httpx.Response(201, json={"environments": [copy, copy]})])
    with played.client() as client:
        copies = client.fork_environment("env-1", 2, name="n", metadata={}, timeout_s=9)
    assert [each.forked_from for each in copies] == ["env-1", "env-1"]
    sent = {"count": 2, "name": "n", "metadata": {}, "timeout": 9}
    assert json.loads(played.asked[0].content) == sent
