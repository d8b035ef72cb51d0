"""Environments over HTTP."""

import asyncio
from datetime import datetime
from typing import Any

import pytest

from sandgate.core.errors import StoreUnavailable
from tests.unit.http.site import ENVIRONMENTS, Site


async def test_creating_answers_what_the_reference_promises(site: Site) -> None:
    """201 with id, status creating and a time in UTC, and the rest of the row."""
    answer = await site.post(ENVIRONMENTS, {"name": "test-environment", "template": "python-3.9", "timeout": 3600})
    assert answer.status_code == 201
    body = answer.json()
    assert body["status"] == "creating"
    assert body["environment_id"].startswith("env-")
    assert body["creation_time"] == "2026-01-01T00:00:00Z"
    assert body["expires_at"] == "2026-01-01T01:00:00Z"
    assert (body["name"], body["template"], body["timeout"]) == ("test-environment", "python-3.9", 3600)
    assert (body["isolation"], body["metadata"], body["status_reason"]) == ("standard", {}, None)
    assert body["limits"] == {"memory_mb": 512, "cpu": 1.0, "processes": 64, "disk_mb": 256}


async def test_name_and_template_are_enough(site: Site) -> None:
    """The lifetime has a default."""
    answer = await site.post(ENVIRONMENTS, {"name": "test-env", "template": "python-3.9"})
    assert answer.json()["timeout"] == site.settings.default_environment_timeout_s


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a" * 64}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": None}, "name"),
        ({"template": ""}, "template"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": 86_401}, "timeout"),
        ({"timeout": 1.5}, "timeout"),
        ({"timeout": "60"}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {str(number): "" for number in range(33)}}, "metadata"),
        ({"isolation": "none"}, "isolation"),
        ({"owner_id": "user-000000000000"}, "owner_id"),
        ({"limits": []}, "limits"),
        ({"limits": {"memory_mb": 1}}, "limits.memory_mb"),
        ({"limits": {"memory_mb": 64.5}}, "limits.memory_mb"),
        ({"limits": {"cpu": 0.01}}, "limits.cpu"),
        ({"limits": {"cpu": "1"}}, "limits.cpu"),
        ({"limits": {"cpu": True}}, "limits.cpu"),
        ({"limits": {"processes": 2}}, "limits.processes"),
        ({"limits": {"disk_mb": 2**60}}, "limits.disk_mb"),
        ({"limits": {"open_files": 9}}, "limits.open_files"),
        ({"status": "running"}, "status"),
        ({"privileged": True}, "privileged"),
    ],
)
async def test_wrong_fields_are_named(site: Site, change: dict[str, Any], field: str) -> None:
    """400 with the field and its problem; nothing is made."""
    answer = await site.post(ENVIRONMENTS, {"name": "e", "template": "python", **change})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "VALIDATION_FAILED"
    assert [item["field"] for item in error["details"]["fields"]] == [field]
    assert (await site.get(ENVIRONMENTS)).json()["environments"] == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"template": "ruby"}, "UNKNOWN_TEMPLATE"),
        ({"template": "python-3.8"}, "TEMPLATE_UNAVAILABLE"),
        ({"isolation": "gvisor"}, "ISOLATION_UNAVAILABLE"),
    ],
)
async def test_what_this_server_has_not_is_refused(site: Site, change: dict[str, Any], code: str) -> None:
    """400 with a code of its own."""
    answer = await site.post(ENVIRONMENTS, {"name": "e", "template": "python", **change})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


async def test_an_unknown_template_lists_the_known_ones(site: Site) -> None:
    """The refusal helps."""
    answer = await site.post(ENVIRONMENTS, {"name": "e", "template": "ruby"})
    assert "python-3.9" in answer.json()["error"]["details"]["known"]


async def test_lists_are_filtered(site: Site) -> None:
    """By status (several), template and name; unknown filters are refused."""
    one = await site.create_environment(name="one", metadata={"team": "blue", "x.y": "z"})
    two = await site.create_environment(name="two", template="python")
    site.runtime.gate = asyncio.Event()

    async def listed(**params: Any) -> set[str]:
        answer = await site.get(ENVIRONMENTS, params=params)
        return {item["environment_id"] for item in answer.json()["environments"]}

    assert await listed() == {one, two}
    assert await listed(name="one") == {one}
    assert await listed(template="python") == {two}
    assert await listed(status=["failed", "expired"]) == set()
    assert await listed(status=["creating", "running"]) == {one, two}
    assert await listed(**{"metadata.team": "blue"}) == {one}
    assert await listed(metadata=["team=blue", "x.y=z"]) == {one}
    assert await listed(**{"metadata.team": "blue", "metadata.x.y": "other"}) == set()
    for odd in ({"metadata.a b": "x"}, {"metadata": "x"}, {"metadata.x": ["1", "2"]}, {"template.x": "y"}):
        assert (await site.get(ENVIRONMENTS, params=odd)).status_code == 400
    for wrong in ({"status": "gone"}, {"colour": "red"}, {"name": ["a", "b"]}):
        assert (await site.get(ENVIRONMENTS, params=wrong)).status_code == 400


async def test_an_environment_is_got_changed_and_deleted(site: Site) -> None:
    """The life of one, then 404."""
    path = f"{ENVIRONMENTS}/{await site.create_environment()}"
    changed = await site.send("PATCH", path, json={"name": "renamed", "metadata": {"k": "v"}, "timeout": 60})
    assert changed.status_code == 200
    assert (await site.get(path)).json()["name"] == "renamed"
    assert datetime.fromisoformat(changed.json()["expires_at"]) > datetime.fromisoformat("2026-01-01T00:00:59Z")
    life = await site.send("PATCH", path, json={"on_timeout": "pause", "idle_timeout": 5.0})
    assert (life.json()["on_timeout"], life.json()["idle_timeout"], life.json()["name"]) == ("pause", 5, "renamed")
    never = await site.send("PATCH", path, json={"idle_timeout": 0})
    assert (never.json()["on_timeout"], never.json()["idle_timeout"]) == ("pause", None)
    deleted = await site.send("DELETE", path)
    assert deleted.status_code == 200
    assert deleted.json() == {"environment_id": path.rpartition("/")[2], "status": "terminated"}
    for method in ("GET", "DELETE"):
        assert (await site.send(method, path)).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": None},
        {"timeout": 0},
        {"template": "python"},
        {"name": "a/b"},
        [],
        "x",
        {"on_timeout": "end"},
        {"on_timeout": None},
        {"idle_timeout": -1},
        {"idle_timeout": 86_401},
    ],
)
async def test_a_change_that_changes_nothing_is_refused(site: Site, body: Any) -> None:
    """400, and the environment stays as it was."""
    path = f"{ENVIRONMENTS}/{await site.create_environment()}"
    before = (await site.get(path)).json()
    assert (await site.send("PATCH", path, json=body)).status_code == 400
    assert {**(await site.get(path)).json(), "status": ""} == {**before, "status": ""}


@pytest.mark.parametrize(
    "text",
    [
        "env-1",
        "env-",
        "x",
        "env-000000000000%00",
        "ENV-000000000000",
        "env-00000000000é",
        "exec-000000000000",
        "env-" + "0" * 99,
    ],
)
async def test_what_cannot_be_an_id_is_not_found(site: Site, text: str) -> None:
    """404, without asking the database."""
    answer = await site.get(f"{ENVIRONMENTS}/{text}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ENVIRONMENT_NOT_FOUND")


async def test_quotas_say_when_to_ask_again(site: Site) -> None:
    """429 with Retry-After."""
    site.service._quota._most = 0
    answer = await site.post(ENVIRONMENTS, {"name": "e", "template": "python"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "TOO_MANY_ENVIRONMENTS")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_database_that_is_away_is_503(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what is wrong, and the client may ask again."""

    async def fail(*_: Any) -> None:
        raise StoreUnavailable("The database does not answer")

    monkeypatch.setattr(site.store.environments, "insert", fail)
    answer = await site.post(ENVIRONMENTS, {"name": "e", "template": "python"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "STORE_UNAVAILABLE")
    assert answer.headers["retry-after"]
    # Its sandbox was asked for already, and ends in its own time.
    async with asyncio.timeout(30):
        while site.service.live_count:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)


async def test_while_the_service_stops_nothing_is_made(site: Site) -> None:
    """503 with a code of its own."""
    site.service._draining = True
    answer = await site.post(ENVIRONMENTS, {"name": "e", "template": "python"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "SERVICE_DRAINING")


async def test_templates_are_listed_with_what_is_missing(site: Site) -> None:
    """By name, the unavailable ones with their reason."""
    answer = (await site.get("/api/v1/sandbox/templates")).json()
    assert answer["next_cursor"] is None
    assert [(item["name"], item["available"]) for item in answer["templates"]] == [
        ("python", True),
        ("python-3.8", False),
        ("python-3.9", True),
    ]
    assert (await site.get("/api/v1/sandbox/templates/python-3.8")).json()["unavailable_reason"]
    assert (await site.get("/api/v1/sandbox/templates/ruby")).json()["error"]["code"] == "TEMPLATE_NOT_FOUND"


async def test_limits_that_are_asked_for(site: Site) -> None:
    """They are the environment's; what is left out is the template's."""
    asked = {"memory_mb": 96, "cpu": 0.25, "disk_mb": 64.0}
    answer = await site.post(ENVIRONMENTS, {"name": "e", "template": "python", "limits": asked})
    assert answer.status_code == 201
    limits = {"memory_mb": 96, "cpu": 0.25, "processes": 64, "disk_mb": 64}
    assert answer.json()["limits"] == limits
    assert (await site.get(f"{ENVIRONMENTS}/{answer.json()['environment_id']}")).json()["limits"] == limits


async def test_limits_above_the_ceilings(site: Site) -> None:
    """400 that names each with its ceiling; nothing is made."""
    asked = {"memory_mb": 4096, "cpu": 16, "processes": 100}
    answer = await site.post(ENVIRONMENTS, {"name": "e", "template": "python", "limits": asked})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "LIMIT_TOO_HIGH"
    assert error["details"] == {
        "limits": {"memory_mb": {"asked": 4096, "ceiling": 2048}, "cpu": {"asked": 16, "ceiling": 2}},
        "scope": "server",
    }
    assert (await site.get(ENVIRONMENTS)).json()["environments"] == []


async def test_metrics(site: Site) -> None:
    """Now and at most, beside the limits; of an environment that has ended there are none."""
    environment_id = (await site.post(ENVIRONMENTS, {"name": "e", "template": "python"})).json()["environment_id"]
    path = f"{ENVIRONMENTS}/{environment_id}"
    body = (await site.get(f"{path}/metrics")).json()
    assert (body["environment_id"], body["executions_running"], body["out_of_memory_kills"]) == (environment_id, 0, 0)
    assert body["cpu"]["limit"] == 1.0
    assert body["memory"]["limit_bytes"] == (512 + 256) << 20
    assert body["memory"]["current_bytes"] <= body["memory"]["peak_bytes"]
    assert (body["processes"]["limit"], body["disk"]["files_limit"]) == (64, 65_536)
    await site.send("DELETE", path)
    assert (await site.get(f"{path}/metrics")).status_code in (404, 409)
    assert (await site.get(f"{ENVIRONMENTS}/env-000000000000/metrics")).status_code == 404
