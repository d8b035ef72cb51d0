"""The audit log tells who did what to which, from where, with which outcome: of every change and every refusal."""

from typing import Any

import pytest

from sandgate.core.audit import AuditEntry, AuditRow
from sandgate.core.errors import StoreUnavailable
from sandgate.core.ids import EnvironmentId
from sandgate.store.audit_trail import MOST_ALIKE_DONE
from sandgate.store.audit_verify import verify_log
from sandgate.store.base import AuditFilter
from tests.unit.http.rules import PROCESS, RULES, WORKFLOWS, ask, make_things
from tests.unit.http.site import ENVIRONMENTS, PASSWORD, Site

AUDIT = "/api/v1/audit"
CODE = "print('a canary in the code')"


async def _rows(site: Site) -> list[AuditRow]:
    """All, oldest first."""
    await site.trail.flush()
    return list(await site.store.audit.read(0, 1000))


async def _last(site: Site) -> AuditEntry:
    return (await _rows(site))[-1].entry


async def test_a_change_is_told_with_everything_that_is_known_of_it(site: Site) -> None:
    """Who, with which credential, what, to which, from where, under which request id, with which outcome."""
    answer = await site.post(
        "/api/v1/users", {"username": "new", "password": PASSWORD}, "admin", headers={"X-Request-Id": "my-request"}
    )
    entry = (await site.store.audit.read(0, 10))[-1].entry  # On disk before it is answered.
    admin = site.accounts["admin"].principal
    assert (entry.actor_id, entry.actor_name) == (admin.user_id, "admin")
    assert entry.credential == "token"
    assert str(entry.credential_id).startswith("tok-")
    assert (entry.action, entry.outcome, entry.status, entry.code) == ("create_user", "done", 201, None)
    assert entry.resource_id == answer.json()["user_id"]
    assert (entry.address, entry.request_id) == ("127.0.0.1", "my-request")
    assert entry.details == {"username": "new", "fields": ["password"]}


async def test_the_resource_is_what_the_path_names(site: Site) -> None:
    """What else took part stands in the details; of the code only that there was some."""
    environment_id = await site.create_environment()
    execution = (await site.post(f"{ENVIRONMENTS}/{environment_id}/execute", {"code": CODE})).json()
    entry = await _last(site)
    assert (entry.action, entry.resource_id) == ("execute", environment_id)
    assert entry.details == {"execution_id": execution["execution_id"], "fields": ["code"]}


async def test_many_executions_share_an_entry(site: Site) -> None:
    """Which still says who, where, and how many; each has a record of its own."""
    environment_id = await site.create_environment()
    for _ in range(MOST_ALIKE_DONE + 5):
        assert (await site.post(f"{ENVIRONMENTS}/{environment_id}/execute", {"code": CODE})).status_code == 200
    site.trail.sum_up(everything=True)
    entries = [row.entry for row in await _rows(site) if row.entry.action == "execute"]
    assert [entry.times for entry in entries] == [1] * MOST_ALIKE_DONE + [5]
    assert (entries[-1].resource_id, entries[-1].actor_name) == (environment_id, entries[0].actor_name)
    assert entries[-1].details == {"fields": ["code"]}


async def test_a_long_path_is_cut_short(site: Site) -> None:
    """What is not written yet waits in memory."""
    environment_id = await site.create_environment()
    await site.send("DELETE", f"{ENVIRONMENTS}/{environment_id}/files/{'a' * 3000}", "user")
    entry = await _last(site)
    assert entry.action == "delete_file"
    assert entry.details["path"] == "a" * 512 + "…"


# What only asks: about a definition, until a process has ended, and servers inside environments, of whose things the
# service knows nothing.
ONLY_ASKS = ("/validate", "/wait", "/{rest}")
CHANGES = [key for key in RULES if key[0] != "GET" and not key[1].endswith(ONLY_ASKS)]


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_every_change_and_its_refusals_are_told(site: Site, method: str, path: str) -> None:
    """Whoever asks; what was planted in bodies is in no entry."""
    made = await make_things(site, path)
    before = len(await _rows(site))
    for who in ("anonymous", "viewer", "stranger", "user"):
        answer = await ask(site, (method, path), who, made)
        rows = await _rows(site)
        entry = rows[-1].entry
        assert len(rows) == (before := before + 1), f"{who}: {answer.text}"
        assert entry.status == answer.status_code
        assert entry.outcome == ("done" if answer.status_code < 400 else "refused")
        assert entry.code == (None if answer.status_code < 400 else answer.json()["error"]["code"])
        assert PASSWORD not in str(entry)
        assert made["token"] not in str(entry)
    assert (await verify_log(site.store.audit, site.chain)).problems == []


@pytest.mark.parametrize("path", [f"{WORKFLOWS}/validate", f"{PROCESS}/wait"])
async def test_what_only_asks_is_told_when_it_is_refused(site: Site, path: str) -> None:
    """Though it is no GET."""
    made = await make_things(site, path)
    before = len(await _rows(site))
    assert (await ask(site, ("POST", path), "user", made)).status_code == 200
    assert len(await _rows(site)) == before
    assert (await ask(site, ("POST", path), "anonymous", made)).status_code == 401
    assert ((await _last(site)).status, len(await _rows(site))) == (401, before + 1)


async def test_reading_is_told_when_it_is_refused(site: Site) -> None:
    """What is another one's, is for admins, needs a credential, cannot be; not what one may read, nor what is not."""
    environment_id = await site.create_environment()
    before = len(await _rows(site))
    await site.get(ENVIRONMENTS)
    await site.get("/api/v1/nothing-here", None)
    assert len(await _rows(site)) == before
    for path, who, status in (
        (f"{ENVIRONMENTS}/{environment_id}", "stranger", 404),
        ("/api/v1/users", "user", 403),
        (AUDIT, "viewer", 403),
        (ENVIRONMENTS, None, 401),
        (f"{ENVIRONMENTS}?limit=x", "viewer", 400),
    ):
        assert (await site.get(path, who)).status_code == status
        entry = await _last(site)
        assert (entry.status, entry.outcome) == (status, "refused")
        assert entry.actor_id == (site.accounts[who].principal.user_id if who else None)


async def test_logins_are_told_with_the_user_whose_name_was_given(site: Site) -> None:
    """A name that nobody has may be a password in the wrong place: it is not kept."""
    for name, password, outcome in (("user", PASSWORD, "done"), ("user", "wrong", "refused")):
        await site.post("/api/v1/auth/token", {"username": name, "password": password}, None)
        entry = await _last(site)
        assert (entry.action, entry.credential, entry.outcome) == ("issue_token", "password", outcome)
        assert (entry.actor_id, entry.actor_name) == (site.accounts["user"].principal.user_id, "user")
    await site.post("/api/v1/auth/token", {"username": PASSWORD, "password": "user"}, None)
    entry = await _last(site)
    assert (entry.actor_id, entry.actor_name, entry.code) == (None, None, "INVALID_CREDENTIALS")
    assert PASSWORD not in str(entry)


async def test_refusals_that_are_alike_are_put_together(site: Site) -> None:
    """Ten of them have a row each; the rest of a minute share one that says how many they were."""
    for _ in range(25):
        await site.get(ENVIRONMENTS, None)
    assert len([row for row in await _rows(site) if row.entry.status == 401]) == 10
    site.clock.advance(61)
    site.trail.sum_up()
    entry = await _last(site)
    assert (entry.status, entry.times) == (401, 15)
    await site.get("/api/v1/me", None)
    assert (await _last(site)).action == "get_me"


async def test_a_change_is_told_once_the_database_is_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was done, so that it is answered; the entry waits."""
    append = site.store.audit.append

    async def away(*_: Any) -> int:
        raise StoreUnavailable("away")

    monkeypatch.setattr(site.store.audit, "append", away)
    assert (await site.post("/api/v1/auth/api-keys", {"label": "x"})).status_code == 201
    assert site.trail.waiting == 1
    monkeypatch.setattr(site.store.audit, "append", append)
    assert (await _last(site)).action == "create_api_key"


async def test_what_ends_by_itself_is_told(site: Site) -> None:
    """An environment whose lifetime is over, with its owner."""
    environment_id = await site.create_environment(timeout=1)
    await site.get(f"{ENVIRONMENTS}/{environment_id}")
    live = site.service._lifecycle.find(EnvironmentId(environment_id))
    assert live is not None
    site.clock.advance(2)
    site.service.end_expired()
    assert live.ended is not None
    await live.ended
    entry = await _last(site)
    assert (entry.action, entry.credential, entry.resource_id) == ("end_environment", "service", environment_id)
    assert entry.details["status"] == "expired"
    assert entry.details["owner_id"] == site.accounts["user"].principal.user_id


async def test_admins_read_the_log_in_pages_and_by_filter(site: Site) -> None:
    """Newest first; each page goes on where the one before ended, while entries are added."""
    for name in ("a", "b", "c"):
        await site.post(WORKFLOWS, {"name": name, "steps": [{"name": "s", "type": "approval"}]})
    first = (await site.get(f"{AUDIT}?action=create_workflow&limit=2", "admin")).json()
    await site.post(WORKFLOWS, {"name": "d", "steps": [{"name": "s", "type": "approval"}]})
    second = (await site.get(f"{AUDIT}?action=create_workflow&limit=2&cursor={first['next_cursor']}", "admin")).json()
    numbers = [entry["number"] for page in (first, second) for entry in page["entries"]]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == 3
    assert second["next_cursor"] is None
    user_id = site.accounts["user"].principal.user_id
    workflow_id = first["entries"][0]["resource_id"]
    for query, count in (
        (f"user_id={user_id}&outcome=done", 4),
        (f"resource_id={workflow_id}", 1),
        ("outcome=refused", 0),
        ("after=2999-01-01T00:00:00Z", 0),
        ("before=2999-01-01T00:00:00Z", 4),
    ):
        assert len((await site.get(f"{AUDIT}?{query}", "admin")).json()["entries"]) == count, query


@pytest.mark.parametrize("query", ["cursor=x", "outcome=x", "after=yesterday", "limit=0", "unknown=1"])
async def test_odd_questions_are_refused(site: Site, query: str) -> None:
    """With the field that is wrong."""
    assert (await site.get(f"{AUDIT}?{query}", "admin")).status_code == 400


async def test_nothing_can_be_written_through_the_api(site: Site) -> None:
    """Whatever the method."""
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await site.send(method, AUDIT, "admin")).status_code == 405
    assert list(await site.store.audit.list(AuditFilter(), None, 10)) == []
