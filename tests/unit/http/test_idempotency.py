"""Requests that are sent again."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from sandgate.core.errors import StoreUnavailable
from tests.unit.http.site import ENVIRONMENTS, PASSWORD, Site

BODY = {"name": "e", "template": "python"}
KEY = {"Idempotency-Key": "key-1"}


async def test_the_same_request_gets_the_first_answer_again(site: Site) -> None:
    """One environment, whatever the layout of the JSON."""
    first = await site.post(ENVIRONMENTS, BODY, headers=KEY)
    laid_out = b'{ "template":\n"python", "name": "e" }'
    again = await site.post(ENVIRONMENTS, content=laid_out, headers={**KEY, "Content-Type": "application/json"})
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert site.service.live_count == 1


async def test_another_request_with_the_key_is_a_conflict(site: Site) -> None:
    """409, whether the body or the operation differs."""
    await site.post(ENVIRONMENTS, BODY, headers=KEY)
    for path, body in ((ENVIRONMENTS, {**BODY, "name": "f"}), ("/api/v1/auth/api-keys", {"label": "x"})):
        answer = await site.post(path, body, headers=KEY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert site.service.live_count == 1


async def test_keys_belong_to_users(site: Site) -> None:
    """Two users may use the same one."""
    first = await site.post(ENVIRONMENTS, BODY, headers=KEY)
    second = await site.post(ENVIRONMENTS, BODY, "stranger", headers=KEY)
    assert first.json()["environment_id"] != second.json()["environment_id"]


async def test_a_refused_request_does_not_use_the_key_up(site: Site) -> None:
    """What was not carried out may be sent again, mended."""
    refused = await site.post(ENVIRONMENTS, {"name": "e", "template": "ruby"}, headers=KEY)
    assert refused.status_code == 400
    assert (await site.post(ENVIRONMENTS, BODY, headers=KEY)).status_code == 201


async def test_a_second_request_does_not_overtake_the_first(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the first is under way the second is told so."""
    gate, insert = asyncio.Event(), site.store.environments.insert

    async def wait_and_insert(row: Any) -> None:
        await gate.wait()
        await insert(row)

    monkeypatch.setattr(site.store.environments, "insert", wait_and_insert)
    requests = [asyncio.ensure_future(site.post(ENVIRONMENTS, BODY, headers=KEY)) for _ in range(2)]
    done, pending = await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
    refused = done.pop().result()
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "IDEMPOTENCY_IN_PROGRESS")
    gate.set()
    assert (await pending.pop()).status_code == 201
    assert site.service.live_count == 1


async def test_keys_are_forgotten_in_the_end(site: Site) -> None:
    """After the retention a key is new."""
    await site.post(ENVIRONMENTS, BODY, headers=KEY)
    site.clock.advance(timedelta(seconds=site.settings.idempotency_retention_s + 1).total_seconds())
    site.accounts["user"] = await site.add_account("renewed", site.accounts["user"].principal.role)
    answer = await site.post(ENVIRONMENTS, {**BODY, "name": "other"}, headers=KEY)
    assert answer.status_code == 201


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
async def test_odd_keys_are_refused(site: Site, key: str) -> None:
    """400, and nothing is made."""
    answer = await site.post(ENVIRONMENTS, BODY, headers={"Idempotency-Key": key.encode()})
    assert (answer.status_code, site.service.live_count) == (400, 0)


async def test_the_secret_of_a_key_is_not_kept(site: Site) -> None:
    """The replay has everything but the secret, and one key exists."""
    first = await site.post("/api/v1/auth/api-keys", {"label": "x"}, headers=KEY)
    again = await site.post("/api/v1/auth/api-keys", {"label": "x"}, headers=KEY)
    assert first.json()["api_key"]
    assert again.json() == {**first.json(), "api_key": None}
    assert len((await site.get("/api/v1/auth/api-keys")).json()["api_keys"]) == 1


async def test_no_fingerprint_of_a_password_is_kept(site: Site) -> None:
    """A request that differs in the password only counts as the same, so that the digest says nothing of it."""
    body = {"username": "alice", "password": PASSWORD}
    first = await site.post("/api/v1/users", body, "admin", headers=KEY)
    again = await site.post("/api/v1/users", {**body, "password": "another password"}, "admin", headers=KEY)
    assert (again.status_code, again.content) == (201, first.content)


async def test_an_answer_that_could_not_be_kept_is_still_given(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key stays taken, so that what was done is not done twice."""

    async def fail(*_: Any) -> None:
        raise StoreUnavailable("The database does not answer")

    monkeypatch.setattr(site.store.idempotency, "save", fail)
    assert (await site.post(ENVIRONMENTS, BODY, headers=KEY)).status_code == 201
    assert (await site.post(ENVIRONMENTS, BODY, headers=KEY)).status_code == 409
    assert site.service.live_count == 1


async def test_a_run_starts_once_though_its_answer_was_never_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the next start of the server finds is the answer that was drafted with the run."""

    async def fail(*_: Any) -> None:
        raise StoreUnavailable("The database does not answer")

    step = {"name": "a", "type": "approval"}
    made = (await site.post("/api/v1/orchestrator/workflows", {"name": "w", "steps": [step]})).json()
    path = f"/api/v1/orchestrator/workflows/{made['workflow_id']}/start"
    monkeypatch.setattr(site.store.idempotency, "save", fail)
    first = await site.post(path, {}, headers=KEY)
    assert (await site.post(path, {}, headers=KEY)).status_code == 409
    await site.store.idempotency.release_unanswered()
    again = await site.post(path, {}, headers=KEY)
    assert (again.status_code, again.json()["run_id"]) == (200, first.json()["run_id"])
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"


async def test_other_operations_do_not_look_at_the_header(site: Site) -> None:
    """Tokens are never kept."""
    body = {"username": "user", "password": PASSWORD}
    answers = [await site.post("/api/v1/auth/token", body, None, headers=KEY) for _ in range(2)]
    assert answers[0].json()["access_token"] != answers[1].json()["access_token"]
