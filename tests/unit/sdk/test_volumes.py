"""The client's calls about volumes, against a server that is played."""

import json

import httpx
import pytest

from sandgate.sdk.errors import ApiError
from sandgate.sdk.volumes import Mount
from tests.unit.sdk.test_client import TIME, Played, refusal

_VOLUME = {
    "volume_id": "vol-1", "name": "data", "creation_time": TIME, "size_mb": 64, "used_bytes": None,
    "environment_ids": [], "owner_id": "user-1", "more": 1,
}  # fmt: skip


def _page(*names: str, cursor: str | None = None, owner_id: str = "user-1") -> httpx.Response:
    rows = [{**_VOLUME, "name": name, "owner_id": owner_id} for name in names]
    return httpx.Response(200, json={"volumes": rows, "next_cursor": cursor})


def test_volumes_are_made_listed_and_deleted() -> None:
    """Each call asks for what it says."""
    deleted = httpx.Response(200, json={"volume_id": "vol-1", "status": "deleted", "ended_environment_ids": []})
    played = Played([
        httpx.Response(201, json=_VOLUME), httpx.Response(200, json=_VOLUME), _page("a", cursor="c"), _page("b"),
        httpx.Response(200, json={"user_id": "user-1"}), _page("no", owner_id="user-2", cursor="d"),
        _page("no"),
        refusal(409, "VOLUME_IN_USE"), deleted,
    ])  # fmt: skip
    with played.client() as client:
        assert client.create_volume("data", size_mb=64, key="k").name == "data"
        assert client.get_volume("vol-1").used_bytes is None
        assert [volume.name for volume in client.list_volumes()] == ["a", "b"]
        found = client.find_volume("no")
        assert found is not None
        assert found.owner_id == "user-1"
        with pytest.raises(ApiError):
            client.delete_volume("../vol-1")
        client.delete_volume("vol-1", force=True)
    asked = [(each.method, each.url.raw_path.decode().rpartition("/sandbox/volumes")[2]) for each in played.asked]
    assert asked == [
        ("POST", ""), ("GET", "/vol-1"), ("GET", "?limit=200"), ("GET", "?limit=200&cursor=c"),
        ("GET", "/under/api/v1/me"), ("GET", "?limit=200&name=no"), ("GET", "?limit=200&name=no&cursor=d"),
        ("DELETE", "/..%2Fvol-1"), ("DELETE", "/vol-1?force=true"),
    ]  # fmt: skip
    assert json.loads(played.asked[0].content) == {"name": "data", "size_mb": 64}
    assert played.asked[0].headers["idempotency-key"] == "k"


def test_an_environment_is_asked_for_with_volumes() -> None:
    """By their names."""
    played = Played([refusal(400, "INVALID_REQUEST")])
    with played.client() as client, pytest.raises(ApiError):
        client.create_environment("e", "python", volumes=[Mount("data", "/data", read_only=True)])
    body = json.loads(played.asked[0].content)
    assert body["volumes"] == [{"name": "data", "path": "/data", "read_only": True}]
