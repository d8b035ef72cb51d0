"""The client's calls about ports, against a server that is played."""

import json

import httpx
import pytest

from sandgate.sdk.errors import ApiError, ServerUnreachable
from sandgate.sdk.ports import port_path
from tests.unit.sdk.test_client import ADDRESS, TIME, Played, refusal

INSIDE = {"x-sandgate-port": "8000"}


def test_a_server_inside_is_asked() -> None:
    """Its answer is one whatever the status; only what this API says itself is an error."""
    there = httpx.Response(404, content=b'{"error": "mine"}', headers={**INSIDE, "X-Own": "1"})
    played = Played([there, refusal(409, "PORT_NOT_SERVED"), httpx.ReadError])
    with played.client() as client:
        answer = client.ask_port("env-1", 8000, "a b?q=1", method="POST", content=b"in", headers={"X-Asked": "2"})
        assert (answer.status, answer.json(), answer.headers["x-own"]) == (404, {"error": "mine"}, "1")
        with pytest.raises(ApiError, match="it is so") as refused:
            client.ask_port("env-1", 8000)
        with pytest.raises(ServerUnreachable):
            client.ask_port("env-1", 8000)
    assert refused.value.code == "PORT_NOT_SERVED"
    asked = played.asked[0]
    assert (asked.method, asked.content, asked.headers["x-asked"]) == ("POST", b"in", "2")
    assert asked.url.raw_path.endswith(b"/environments/env-1/ports/8000/a%20b?q=1")
    assert len(played.asked) == 3


def test_a_path_stays_behind_its_port() -> None:
    """Steps would lead to other addresses of the API, with the credential; in a query they are none."""
    base = "/api/v1/sandbox/environments/env-1/ports/80/"
    paths = {
        "": "", "/": "", "/a/../b": "a/%2E%2E/b", "../x": "%2E%2E/x", "./?p=../x": "%2E/?p=../x",
        "//other.example/": "/other.example/",
    }  # fmt: skip
    assert {path: port_path("env-1", 80, path) for path in paths} == {path: base + to for path, to in paths.items()}
    played = Played([httpx.Response(200, headers=INSIDE) for _ in paths])
    with played.client() as client:
        for path in paths:
            client.ask_port("env-1", 80, path)
    assert {str(asked.url.raw_path, "ascii") for asked in played.asked} == {
        f"/under{base}{to}" for to in paths.values()
    }


def test_links_and_addresses_for_others() -> None:
    """What was not asked for is not sent."""
    link = {"link_path": "/api/v1/port-links/x.y/", "link_url": None, "port": 8000, "expires_at": TIME, "new": 1}
    played = Played([httpx.Response(201, json=link) for _ in range(2)])
    with played.client() as client:
        assert client.create_port_link("env-1", 8000).link_path == link["link_path"]
        client.create_port_link("env-1", 8000, expires_in_s=60)
        address = client.port_address("env-1", 8000, "x")
    assert address == f"{ADDRESS}/api/v1/sandbox/environments/env-1/ports/8000/x"
    assert [json.loads(asked.content) for asked in played.asked] == [{}, {"expires_in": 60}]
