"""Quotas: set by admins, shown with what is used, refused by name before any work."""

from datetime import timedelta
from typing import Any

import pytest

from sandgate.core.errors import StoreUnavailable
from sandgate.core.quota import QuotaReport, QuotaUse, UserQuota
from sandgate.http.models.quotas import QuotaParts
from tests.unit.http.site import ENVIRONMENTS, Site
from tests.unit.http.test_execution_routes import start

NEW = {"name": "e", "template": "python"}
MIB = 1024 * 1024


def _path(site: Site, who: str = "user") -> str:
    return f"/api/v1/users/{site.accounts[who].principal.user_id}/quota"


async def _set(site: Site, **fields: Any) -> dict[str, Any]:
    answer = await site.send("PUT", _path(site), "admin", json=fields)
    assert answer.status_code == 200, answer.text
    quota: dict[str, Any] = answer.json()["quota"]
    return quota


async def _own(site: Site, who: str = "user") -> dict[str, Any]:
    quota: dict[str, Any] = (await site.get("/api/v1/me", who)).json()["quota"]
    return quota


async def test_what_was_set_is_shown_to_the_admin_and_to_the_user(site: Site) -> None:
    """What was not set is as the settings say, and says so; taken away, everything is."""
    before = await _own(site)
    assert before["environments"] == {"limit": 1000, "used": 0, "set": False}
    assert before["memory_mb"] == {"limit": None, "used": 0, "set": False}
    each = {"memory_mb": 1024, "cpu": 0.5, "processes": 100, "disk_mb": 64}
    shown = await _set(site, environments=2, memory_mb=0, executions_per_day=5, environment=each)
    assert shown["environments"] == {"limit": 2, "used": 0, "set": True}
    assert shown["memory_mb"] == {"limit": 0, "used": 0, "set": True}
    assert shown["executions_at_once"]["set"] is False
    assert shown["environment"] == each
    assert (await site.get(_path(site), "admin")).json()["quota"] == shown == await _own(site)
    assert (await site.send("DELETE", _path(site), "admin")).json()["quota"] == before == await _own(site)


def test_settings_beyond_what_may_be_set_for_a_user_are_shown() -> None:
    """A server whose settings say as good as nothing about a limit says so."""
    allowed = UserQuota(
        environment_memory_bytes=1 << 50,
        environment_cpu_millis=10**9,
        environment_processes=32_768,
        environment_disk_bytes=1 << 50,
    )
    use = QuotaUse(environments=0, memory_bytes=0, executions_today=0, executions_at_once=0)
    shown = QuotaParts.of(QuotaReport(UserQuota(), allowed, use)).model_dump(mode="json")
    assert shown["environment"] == {"memory_mb": 1 << 30, "cpu": 10**6, "processes": 32_768, "disk_mb": 1 << 30}


async def test_a_user_may_be_given_less_or_more_of_one_environment(site: Site) -> None:
    """Than the settings give to everybody; what the template gives may be had in any case."""
    wanted = {**NEW, "limits": {"processes": 100}}
    assert (await site.post(ENVIRONMENTS, wanted)).status_code == 201
    await _set(site, environment={"processes": 99})
    refused = await site.post(ENVIRONMENTS, wanted)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "LIMIT_TOO_HIGH")
    assert refused.json()["error"]["details"] == {
        "limits": {"processes": {"asked": 100, "ceiling": 99}}, "scope": "user"
    }  # fmt: skip
    await _set(site, environment={"processes": site.settings.max_environment_processes + 1})
    most = {"processes": site.settings.max_environment_processes + 1}
    assert (await site.post(ENVIRONMENTS, {**NEW, "limits": most})).status_code == 201
    assert (await site.post(ENVIRONMENTS, {**NEW, "limits": most}, "stranger")).status_code == 400


async def test_environments_are_refused_beyond_the_quota(site: Site) -> None:
    """With how many there are; a deleted one makes room, and others have their own."""
    await _set(site, environments=1)
    first = await site.create_environment()
    refused = await site.post(ENVIRONMENTS, NEW)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "TOO_MANY_ENVIRONMENTS")
    assert refused.json()["error"]["details"] == {"limit": 1, "used": 1, "scope": "user"}
    assert int(refused.headers["retry-after"]) >= 1
    await site.create_environment("stranger")
    await site.send("DELETE", f"{ENVIRONMENTS}/{first}")
    await site.create_environment()


async def test_memory_of_all_environments_together_is_refused_beyond_the_quota(site: Site) -> None:
    """Also by an environment that would have more than there is left."""
    each = site.settings.memory_bytes + site.settings.disk_bytes  # Files are in memory.
    limit = each * 5 // 2
    await _set(site, memory_mb=limit // MIB)
    ids = [await site.create_environment() for _ in range(2)]
    refused = await site.post(ENVIRONMENTS, NEW)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "MEMORY_QUOTA_EXCEEDED")
    details = {"limit_bytes": limit, "used_bytes": 2 * each, "asked_bytes": each, "scope": "user"}
    assert refused.json()["error"]["details"] == details
    assert (await _own(site))["memory_mb"]["used"] == 2 * each // MIB
    await site.send("DELETE", f"{ENVIRONMENTS}/{ids[0]}")
    await site.create_environment()


async def test_executions_of_a_day_are_refused_beyond_the_quota(site: Site) -> None:
    """Until midnight, whatever was added to the database meanwhile and by whichever server."""
    await _set(site, executions_per_day=3)
    path = f"{ENVIRONMENTS}/{await site.create_environment(timeout=86_400)}/execute"
    for number in range(3):
        assert (await site.post(path, {"code": "pass"})).status_code == 200
        if number == 1:
            await site.service.quotas.use.add()
    refused = await site.post(path, {"code": "pass"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "EXECUTION_QUOTA_EXCEEDED")
    assert refused.json()["error"]["details"] == {"limit": 3, "used": 3, "scope": "day"}
    assert (await _own(site))["executions_per_day"] == {"limit": 3, "used": 3, "set": True}
    now = site.clock.now()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    assert int(refused.headers["retry-after"]) == pytest.approx((midnight - now).total_seconds(), abs=1)
    await site.service.quotas.use.add()
    assert await site.store.quotas.count_executions(site.accounts["user"].principal.user_id, now.date()) == 3


async def test_a_new_day_begins_at_midnight(site: Site) -> None:
    """Of UTC."""
    user_id = site.accounts["user"].principal.user_id
    use = site.service.quotas.use
    await use.begin(user_id, await site.service.quotas.allowed(user_id))
    use.end(user_id)
    assert await use.today(user_id) == 1
    site.clock.advance(86_400)
    assert await use.today(user_id) == 0


async def test_executions_at_once_are_refused_beyond_the_quota(site: Site) -> None:
    """One that has ended makes room."""
    await _set(site, executions_at_once=1)
    environment = f"{ENVIRONMENTS}/{await site.create_environment()}"
    running, execution_id = await start(site, environment)
    refused = await site.post(f"{environment}/execute", {"code": "pass"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "EXECUTION_QUOTA_EXCEEDED")
    assert refused.json()["error"]["details"] == {"limit": 1, "used": 1, "scope": "at_once"}
    await site.post(f"{environment}/executions/{execution_id}/cancel")
    assert (await running).json()["status"] == "cancelled"
    assert site.service.quotas.use.at_once(site.accounts["user"].principal.user_id) == 0
    assert (await site.post(f"{environment}/execute", {"code": "pass"})).status_code == 200


async def test_counts_that_could_not_be_written_are_written_later(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost, and nothing counts twice."""
    path = f"{ENVIRONMENTS}/{await site.create_environment()}/execute"
    await site.post(path, {"code": "pass"})
    add = site.store.quotas.add_executions

    async def away(*_: Any) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(site.store.quotas, "add_executions", away)
    await site.service.quotas.use.add()
    monkeypatch.setattr(site.store.quotas, "add_executions", add)
    for _ in range(2):
        await site.service.quotas.use.add()
    user_id = site.accounts["user"].principal.user_id
    assert await site.store.quotas.count_executions(user_id, site.clock.now().date()) == 1
    assert await site.service.quotas.use.today(user_id) == 1


WRONG: list[dict[str, Any]] = [
    {"environments": -1},
    {"environments": True},
    {"environments": "5"},
    {"disk": 1},
    {"environment": {"memory_mb": 1}},
    {"environment": {"cpu": 0}},
    {"environment": {"gpu": 1}},
    {"memory_mb": 1e300},
    {"executions_per_day": 0.5},
]


@pytest.mark.parametrize("body", WRONG)
async def test_wrong_fields_are_named(site: Site, body: dict[str, Any]) -> None:
    """And nothing is set."""
    answer = await site.send("PUT", _path(site), "admin", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_FAILED")
    assert (await _own(site))["environments"]["set"] is False


async def test_who_is_not_there_has_no_quota(site: Site) -> None:
    """404 for each method."""
    for method in ("GET", "PUT", "DELETE"):
        named: dict[str, Any] = {"json": {}} if method == "PUT" else {}
        answer = await site.send(method, f"/api/v1/users/user-{'0' * 26}/quota", "admin", **named)
        assert answer.status_code == 404
