"""Snapshots and copies over HTTP: what is asked for, answered, refused and told of."""

from typing import Any

import pytest

from sandgate.config.settings import Settings
from sandgate.core.audit import AuditOutcome
from sandgate.core.quota import UserQuota
from tests.unit.http.site import ENVIRONMENTS, Site

SNAPSHOTS = "/api/v1/sandbox/snapshots"


async def _environment(site: Site, **wanted: Any) -> str:
    made = await site.post(ENVIRONMENTS, {"name": "e", "template": "python-3.9", **wanted})
    environment_id: str = made.json()["environment_id"]
    await site.send("PUT", f"{ENVIRONMENTS}/{environment_id}/files/f", content=b"kept")
    return environment_id


async def _snapshot(site: Site, environment_id: str, **wanted: Any) -> dict[str, Any]:
    answer = await site.post(f"{ENVIRONMENTS}/{environment_id}/snapshots", wanted)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def _content(site: Site, environment_id: str) -> str:
    return (await site.get(f"{ENVIRONMENTS}/{environment_id}/files/f")).text


async def test_a_snapshot_is_made_found_begun_from_and_deleted(site: Site) -> None:
    """Without a body it has the name of its environment; lists are by name and template, page by page."""
    first = await _environment(site)
    plain = (await site.post(f"{ENVIRONMENTS}/{first}/snapshots")).json()
    named = await _snapshot(site, first, name="s", metadata={"k": "v"})
    assert (plain["name"], plain["metadata"], named["name"], named["metadata"]) == ("e", {}, "s", {"k": "v"})
    assert (named["files"], named["consistent"], named["size_bytes"]) == (1, True, 10_240)
    assert (await site.get(f"{SNAPSHOTS}/{named['snapshot_id']}")).json() == named
    page = (await site.get(f"{SNAPSHOTS}?limit=1")).json()
    assert page["snapshots"] == [named]
    rest = (await site.get(f"{SNAPSHOTS}?limit=1&cursor={page['next_cursor']}")).json()
    assert (rest["snapshots"], rest["next_cursor"]) == ([plain], None)
    assert (await site.get(f"{SNAPSHOTS}?name=s&template=python-3.9")).json()["snapshots"] == [named]
    assert (await site.get(f"{SNAPSHOTS}?template=other")).json()["snapshots"] == []
    begun = (await site.post(ENVIRONMENTS, {"name": "n", "snapshot_id": named["snapshot_id"]})).json()
    assert (begun["snapshot_id"], begun["template"]) == (named["snapshot_id"], "python-3.9")
    assert await _content(site, begun["environment_id"]) == "kept"
    deleted = await site.send("DELETE", f"{SNAPSHOTS}/{named['snapshot_id']}")
    assert deleted.json() == {"snapshot_id": named["snapshot_id"], "deleted": True}
    assert (await site.get(f"{SNAPSHOTS}/{named['snapshot_id']}")).status_code == 404
    again = await site.post(ENVIRONMENTS, {"name": "n", "snapshot_id": named["snapshot_id"]})
    assert (again.status_code, again.json()["error"]["code"]) == (404, "SNAPSHOT_NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("", {"name": "e"}, "template"),
        ("", {"name": "e", "snapshot_id": "../../etc"}, "snapshot_id"),
        ("/{}/snapshots", {"name": "no spaces"}, "name"),
        ("/{}/snapshots", {"unknown": 1}, "unknown"),
        ("/{}/fork", {"count": 0}, "count"),
        ("/{}/fork", {"count": 33}, "count"),
        ("/{}/fork", {"count": "2"}, "count"),
        ("/{}/fork", {"timeout": 0}, "timeout"),
    ],
)
async def test_what_is_wrong_is_named(site: Site, path: str, body: dict[str, Any], field: str) -> None:
    """And nothing is made."""
    first = await _environment(site)
    answer = await site.post(f"{ENVIRONMENTS}{path.format(first)}", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_FAILED")
    assert field in answer.json()["error"]["message"]
    assert site.service.live_count == 1


async def test_copies_are_made_once_for_a_key(site: Site) -> None:
    """The second time the same ones are answered; another request with the key is refused."""
    first = await _environment(site, env={"A": "1"})
    headers = {"Idempotency-Key": "once"}
    path = f"{ENVIRONMENTS}/{first}/fork"
    made = [await site.post(path, {"count": 2}, headers=headers) for _again in range(2)]
    assert [answer.status_code for answer in made] == [201, 201]
    assert made[0].json() == made[1].json()
    copies = made[0].json()["environments"]
    assert [(copy["forked_from"], copy["env"]) for copy in copies] == [(first, {"A": "1"})] * 2
    assert [await _content(site, copy["environment_id"]) for copy in copies] == ["kept", "kept"]
    assert site.service.live_count == 3
    assert (await site.post(path, {"count": 1}, headers=headers)).status_code == 409
    kept = [await site.post(f"{ENVIRONMENTS}/{first}/snapshots", {}, headers={"Idempotency-Key": "s"}) for _n in "ab"]
    assert kept[0].json() == kept[1].json()
    assert len((await site.get(SNAPSHOTS)).json()["snapshots"]) == 1


async def test_what_is_beyond_the_quota_says_so(site: Site) -> None:
    """With when to ask again, and what is allowed."""
    first = await _environment(site)
    user_id = site.accounts["user"].principal.user_id
    await site.service.quotas.put(site.accounts["admin"].principal, user_id, UserQuota(snapshots=0))
    refused = await site.post(f"{ENVIRONMENTS}/{first}/snapshots", {})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "TOO_MANY_SNAPSHOTS")
    assert refused.json()["error"]["details"] == {"limit": 0, "used": 0}
    assert int(refused.headers["retry-after"]) > 0
    site.service.snapshots._settings = Settings(max_snapshot_bytes=5000)
    await site.service.quotas.delete(site.accounts["admin"].principal, user_id)
    large = await site.post(f"{ENVIRONMENTS}/{first}/snapshots", {})
    assert (large.status_code, large.json()["error"]["code"]) == (413, "SNAPSHOT_TOO_LARGE")


async def test_the_audit_log_tells_of_each(site: Site) -> None:
    """Who has made, copied and deleted what; and what was refused."""
    first = await _environment(site)
    row = await _snapshot(site, first, name="s")
    await site.post(f"{ENVIRONMENTS}/{first}/fork", {"count": 1})
    await site.send("DELETE", f"{SNAPSHOTS}/{row['snapshot_id']}", "stranger")
    await site.send("DELETE", f"{SNAPSHOTS}/{row['snapshot_id']}")
    await site.trail.flush()
    told = [row.entry for row in await site.store.audit.read(0, 1000)]
    found = [(entry.action, entry.actor_name, entry.outcome, entry.resource_id) for entry in told]
    (made,) = [entry for entry in told if entry.action == "create_snapshot"]
    assert (made.resource_id, made.details["snapshot_id"]) == (first, row["snapshot_id"])
    assert ("delete_snapshot", "user", AuditOutcome.DONE, row["snapshot_id"]) in found
    assert ("delete_snapshot", "stranger", AuditOutcome.REFUSED, row["snapshot_id"]) in found
    (forked,) = [entry for entry in told if entry.action == "fork_environment"]
    assert (forked.resource_id, forked.details["count"]) == (first, 1)
