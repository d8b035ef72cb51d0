"""What environments may reach, over HTTP."""

from typing import Any

import pytest

from sandgate.core.errors import NetworkUnavailable
from tests.unit.http.site import ENVIRONMENTS, Site

_RULES = {"allow": ["Packages.Example.com.", "*.example.org:443"]}
_TOLD = {"allow": ["packages.example.com", "*.example.org:443"]}


async def _make(site: Site, network: Any = _RULES) -> str:
    answer = await site.post(ENVIRONMENTS, {"name": "e", "template": "python", "network": network}, "user")
    assert answer.status_code == 201, answer.text
    assert answer.json()["network"] == (None if network is None else _TOLD)
    return f"{ENVIRONMENTS}/{answer.json()['environment_id']}"


async def test_rules_are_kept_and_changed(site: Site) -> None:
    """What a PATCH leaves out stays; null takes the network away."""
    path = await _make(site)
    assert (await site.get(f"{path}/network", "user")).json()["network"] == _TOLD
    changed = await site.send("PATCH", path, json={"name": "other"})
    assert changed.json()["network"] == _TOLD
    changed = await site.send("PATCH", path, json={"network": {"allow": ["a.example"]}})
    assert changed.json()["network"] == {"allow": ["a.example"]}
    told = (await site.get(f"{path}/network", "user")).json()
    assert (told["network"], told["connections"], told["totals"]["open"]) == ({"allow": ["a.example"]}, [], 0)
    assert (await site.send("PATCH", path, json={"network": None})).json()["network"] is None
    assert (await site.get(path, "user")).json()["network"] is None


@pytest.mark.parametrize(
    "network",
    [{}, [], {"allow": None}, {"allow": "a"}, {"allow": ["*"]}, {"allow": ["a b"]}, {"allow": ["a"], "deny": []},
     {"allow": [1]}, {"allow": [""]}, {"allow": ["http://a.example"]}, {"allow": ["127.1"]}, True],
)  # fmt: skip
async def test_what_are_no_rules(site: Site, network: Any) -> None:
    """They are refused with the field's name, when one is made and when one is changed."""
    path = await _make(site, None)
    made = await site.post(ENVIRONMENTS, {"name": "e", "template": "python", "network": network}, "user")
    changed = await site.send("PATCH", path, json={"network": network})
    for answer in (made, changed):
        assert answer.status_code == 400
        assert answer.json()["error"]["details"]["fields"][0]["field"].startswith("network")


async def test_too_many_hosts(site: Site) -> None:
    """As many as the setting says, and no more."""
    hosts = [f"a{number}.example" for number in range(site.settings.max_network_rules + 1)]
    answer = await site.post(ENVIRONMENTS, {"name": "e", "template": "python", "network": {"allow": hosts}}, "user")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "TOO_MANY_NETWORK_RULES")


async def test_a_change_that_cannot_be_made(site: Site) -> None:
    """It changes nothing, and is answered 503."""
    path = await _make(site)
    (live,) = [each for each in site.service._lifecycle.all() if each.environment_id == path.rpartition("/")[2]]
    network: Any = (await live.wait_for_sandbox()).network
    network.failure = NetworkUnavailable("The proxy is being started again; ask again")
    changed = await site.send("PATCH", path, json={"network": {"allow": []}})
    assert (changed.status_code, changed.json()["error"]["code"]) == (503, "NETWORK_UNAVAILABLE")
    assert (await site.get(path, "user")).json()["network"] == _TOLD
