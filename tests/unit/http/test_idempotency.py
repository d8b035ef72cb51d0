"""Requests that are sent again."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from sandgate.core.errors import StoreUnavailable
from sandgate.http.idempotency import SECRET_FIELDS
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

    async def wait_and_insert(row: Any, answer: Any, allowed: Any) -> None:
        await gate.wait()
        await insert(row, answer, allowed)

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


async def _fail(*_: Any) -> None:
    raise StoreUnavailable("The database does not answer")


async def test_an_answer_that_could_not_be_kept_is_still_given(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key stays taken, so that what was done is not done twice."""
    made = (await site.post(ENVIRONMENTS, BODY)).json()
    path = f"{ENVIRONMENTS}/{made['environment_id']}/execute"
    monkeypatch.setattr(site.store.idempotency, "save", _fail)
    assert (await site.post(path, {"code": "pass"}, headers=KEY)).status_code == 200
    assert (await site.post(path, {"code": "pass"}, headers=KEY)).status_code == 409


async def _make(site: Site, *steps: dict[str, Any]) -> str:
    definition = {"name": "w", "inputs": {"event": {"type": "object", "default": {}}}, "steps": list(steps)}
    made: str = (await site.post("/api/v1/orchestrator/workflows", definition)).json()["workflow_id"]
    return made


ASK = {"name": "a", "type": "approval"}
ORCHESTRATOR = "/api/v1/orchestrator"


Request = tuple[str, dict[str, Any]]


async def _ended(site: Site) -> str:
    run = (await site.post(f"{ORCHESTRATOR}/workflows/{await _make(site, ASK)}/start")).json()["run_id"]
    assert (await site.post(f"{ORCHESTRATOR}/runs/{run}/cancel")).status_code == 200
    return f"{ORCHESTRATOR}/runs/{run}/retry"


async def _a_schedule(site: Site) -> str:
    body = {"workflow_id": await _make(site, ASK), "interval": 3600}
    made = (await site.post(f"{ORCHESTRATOR}/schedules", body)).json()
    return f"{ORCHESTRATOR}/schedules/{made['schedule_id']}/trigger"


MAKING: dict[str, Callable[[Site], Awaitable[Request]]] = {
    "environment": lambda _site: _plain(ENVIRONMENTS, BODY),
    "workflow": lambda _site: _plain(f"{ORCHESTRATOR}/workflows", {"name": "w", "steps": [ASK]}),
    "user": lambda _site: _plain("/api/v1/users", {"username": "alice", "password": PASSWORD}),
    "api key": lambda _site: _plain("/api/v1/auth/api-keys", {"label": "x"}),
    "schedule": lambda site: _with_workflow(site, "schedules", interval=3600),
    "webhook": lambda site: _with_workflow(site, "webhooks"),
    "start": lambda site: _path(site, _start_path(site)),
    "trigger": lambda site: _path(site, _a_schedule(site)),
    "retry": lambda site: _path(site, _ended(site)),
}


async def _plain(path: str, body: dict[str, Any]) -> Request:
    return path, body


async def _with_workflow(site: Site, kind: str, **more: Any) -> Request:
    return f"{ORCHESTRATOR}/{kind}", {"workflow_id": await _make(site, ASK), **more}


async def _start_path(site: Site) -> str:
    return f"{ORCHESTRATOR}/workflows/{await _make(site, ASK)}/start"


async def _path(site: Site, path: Awaitable[str]) -> Request:
    return await path, {}


@pytest.mark.parametrize("kind", MAKING)
async def test_what_was_made_has_its_answer_beside_it(kind: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written after it that could be missed: a process that dies then answers as it would have."""
    path, body = await MAKING[kind](site)
    monkeypatch.setattr(site.store.idempotency, "save", _fail)
    first = await site.post(path, body, "admin", headers=KEY)
    assert first.status_code in (200, 201)
    assert await site.store.idempotency.release_unanswered() == 0
    again = await site.post(path, body, "admin", headers=KEY)
    secrets = dict.fromkeys(SECRET_FIELDS & first.json().keys())
    assert (again.status_code, again.json()) == (first.status_code, {**first.json(), **secrets})
    assert again.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize("kind", MAKING)
async def test_a_key_that_was_given_back_makes_nothing(kind: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others believed the server dead, and may have carried the request out: its own write is undone."""
    path, body = await MAKING[kind](site)
    claim = site.store.idempotency.claim

    async def lose(*arguments: Any, **named: Any) -> Any:
        found = await claim(*arguments, **named)
        await site.store.idempotency.release_unanswered()
        return found

    monkeypatch.setattr(site.store.idempotency, "claim", lose)
    refused = await site.post(path, body, "admin", headers=KEY)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "IDEMPOTENCY_IN_PROGRESS")
    monkeypatch.setattr(site.store.idempotency, "claim", claim)
    assert (await site.post(path, body, "admin", headers=KEY)).status_code in (200, 201)


async def test_a_start_that_waits_is_joined(site: Site) -> None:
    """A client whose request got lost sends it again, and has the finished run as soon as there is one."""
    path = await _start_path(site)
    first = asyncio.ensure_future(site.post(f"{path}?wait=60", {}, headers=KEY))
    while not (runs := (await site.get(f"{ORCHESTRATOR}/runs")).json()["runs"]):
        pass
    again = asyncio.ensure_future(site.post(f"{path}?wait=60", {}, headers=KEY))
    hurried = await site.post(path, {}, headers=KEY)
    assert (hurried.status_code, hurried.json()["status"]) == (200, "waiting")
    assert hurried.json()["run_id"] == runs[0]["run_id"]
    approved = await site.post(f"{ORCHESTRATOR}/runs/{runs[0]['run_id']}/steps/a/approve", {})
    assert approved.status_code == 200
    answers = await asyncio.gather(first, again)
    assert [answer.json()["status"] for answer in answers] == ["succeeded"] * 2
    assert answers[0].json() == answers[1].json()
    other = await site.post(f"{path}?wait=60", {"inputs": {"event": {"a": 1}}}, headers=KEY)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "IDEMPOTENCY_KEY_REUSED")
    later = await site.post(path, {}, headers=KEY)
    assert later.json() == answers[0].json()
    assert len((await site.get(f"{ORCHESTRATOR}/runs")).json()["runs"]) == 1


async def test_a_start_whose_wait_nobody_ends_is_joined_too(site: Site) -> None:
    """The client went away, or its server died: the draft says which run it is."""
    path = await _start_path(site)
    first = asyncio.ensure_future(site.post(f"{path}?wait=60", {}, headers=KEY))
    while not (await site.get(f"{ORCHESTRATOR}/runs")).json()["runs"]:
        pass
    first.cancel()
    again = asyncio.ensure_future(site.post(f"{path}?wait=60", {}, headers=KEY))
    (run,) = (await site.get(f"{ORCHESTRATOR}/runs")).json()["runs"]
    assert (await site.post(f"{ORCHESTRATOR}/runs/{run['run_id']}/cancel")).status_code == 200
    assert (await again).json()["status"] == "cancelled"


async def test_other_operations_do_not_look_at_the_header(site: Site) -> None:
    """Tokens are never kept."""
    body = {"username": "user", "password": PASSWORD}
    answers = [await site.post("/api/v1/auth/token", body, None, headers=KEY) for _ in range(2)]
    assert answers[0].json()["access_token"] != answers[1].json()["access_token"]
