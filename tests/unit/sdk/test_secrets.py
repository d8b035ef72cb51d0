"""The client's calls about secrets, against a server that is played."""

import json

import httpx

from tests.unit.sdk.test_client import TIME, Played

SECRET = {"name": "API_TOKEN", "creation_time": TIME, "updated_at": TIME}


def test_secrets_are_put_listed_and_deleted() -> None:
    """Names go into paths, values into bodies only."""
    listed = {"secrets": [SECRET], "next_cursor": None}
    answers = (SECRET, listed, {"name": "API_TOKEN", "status": "deleted"})
    played = Played([httpx.Response(200, json=answer) for answer in answers])
    with played.client() as client:
        made = client.put_secret("API_TOKEN", "correct horse")
        assert client.list_secrets() == [made]
        client.delete_secret("../API_TOKEN")
    asked = [(each.method, each.url.raw_path.decode().rpartition("/secrets")[2]) for each in played.asked]
    assert asked == [("PUT", "/API_TOKEN"), ("GET", ""), ("DELETE", "/..%2FAPI_TOKEN")]
    assert json.loads(played.asked[0].content) == {"value": "correct horse"}
