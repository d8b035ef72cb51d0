"""Webhooks over HTTP: what they take, what they refuse, and what nobody learns from them."""

import hashlib
import hmac
import json
from typing import Any

import httpx
import pytest

from sandgate.core.ids import WorkflowId
from sandgate.core.trigger import Webhook
from sandgate.core.workflow import Workflow
from sandgate.workflows.webhooks import WebhookService
from tests.unit.http.site import Site

ORCHESTRATOR = "/api/v1/orchestrator"
WEBHOOKS = f"{ORCHESTRATOR}/webhooks"
ASK = [{"name": "ask", "type": "approval"}]
EVENT = {"event": {"type": "object", "required": True}}


async def a_webhook(site: Site, *, inputs: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A new webhook of the user's, with its address and secret; ``inputs`` are the workflow's beside ``event``."""
    definition = {"name": "w", "steps": ASK, "inputs": {**EVENT, **(inputs or {})}}
    workflow = await site.post(f"{ORCHESTRATOR}/workflows", definition)
    assert workflow.status_code == 201, workflow.text
    answer = await site.post(WEBHOOKS, {"workflow_id": workflow.json()["workflow_id"], **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def call(site: Site, hook: dict[str, Any], body: Any = None, **headers: str) -> httpx.Response:
    """Call it as a stranger."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in {"content_type": "application/json", **headers}.items()}
    return await site.send("POST", hook["hook_path"], None, content=raw, headers=named)


def signed(hook: dict[str, Any], body: bytes, at: str) -> dict[str, str]:
    """The headers of a request, signed as the guide says."""
    mac = hmac.new(hook["signing_secret"].encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {"x_sandgate_timestamp": at, "x_sandgate_signature": f"sha256={mac}"}


def now(site: Site, offset: float = 0) -> str:
    """The time of the server's clock."""
    return str(int(site.clock.now().timestamp() + offset))


async def runs(site: Site) -> list[dict[str, Any]]:
    """All runs, newest first."""
    return list((await site.get(f"{ORCHESTRATOR}/runs", "admin")).json()["runs"])


async def deliveries(site: Site, hook: dict[str, Any]) -> list[dict[str, Any]]:
    """What came to a webhook, newest first."""
    await site.webhooks.stop()
    return list((await site.get(f"{WEBHOOKS}/{hook['webhook_id']}/deliveries")).json()["deliveries"])


async def test_a_request_starts_a_run(site: Site) -> None:
    """As the workflow's owner, with what came as the input ``event`` and without what may be a credential."""
    hook = await a_webhook(site, inputs={"kind": {}})
    path = {**hook, "hook_path": f"{hook['hook_path']}?ref=main"}
    unsafe = {"cookie": "secret", "authorization": "Basic eA==", "x_api_key": "secret"}
    answer = await call(site, path, {"n": [1, 2.5, None]}, user_agent="test", **unsafe)
    assert (answer.status_code, answer.json()["status"]) == (200, "accepted")
    (run,) = await runs(site)
    assert run["run_id"] == answer.json()["run_id"]
    assert run["trigger"] == {"type": "webhook", "id": hook["webhook_id"], "at": None}
    assert run["owner_id"] == site.accounts["user"].principal.user_id
    event = run["inputs"]["event"]
    assert event == {
        "body": {"n": [1, 2.5, None]},
        "headers": {"content-type": "application/json", "user-agent": "test"},
        "query": {"ref": "main"},
        "method": "POST",
        "received_at": "2026-01-01T00:00:00Z",
    }
    (noted,) = await deliveries(site, hook)
    assert (noted["status"], noted["run_id"], noted["size_bytes"]) == ("accepted", run["run_id"], 21)


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        ("application/json", b"[1]", [1]),
        ("application/vnd.test+json; charset=utf-8", b'"x"', "x"),
        ("text/plain", "é\n".encode(), "é\n"),
        ("application/x-www-form-urlencoded", b"a=1&b=2", "a=1&b=2"),
        ("", b"", None),
    ],
)
async def test_bodies_of_all_kinds(site: Site, kind: str, raw: bytes, expected: Any) -> None:
    """JSON as what it is, all else as text, nothing as null."""
    answer = await call(site, await a_webhook(site), raw, content_type=kind)
    assert answer.status_code == 200, answer.text
    (run,) = await runs(site)
    assert run["inputs"]["event"]["body"] == expected


@pytest.mark.parametrize(
    ("kind", "raw", "status"),
    [
        ("application/json", b"{", 400),
        ("application/json", b'{"a": 1, "a": 2}', 400),
        ("application/json", b"[" * 100 + b"]" * 100, 400),
        ("application/json", b"[" * 20_000, 400),
        ("application/json", b"[" + b"9" * 30 + b"]", 400),
        ("application/json", b"[1e999]", 400),
        ("application/json", b'"\\ud800"', 400),
        ("application/json", b'"\\u0000"', 400),
        ("text/plain", b"\xff", 400),
        ("text/plain", b"\x00", 400),
        ("text/plain; charset=latin-1", b"x", 415),
        ("application/json", b'"' + b"x" * 262_144 + b'"', 413),
    ],
)
async def test_odd_bodies_start_nothing(site: Site, kind: str, raw: bytes, status: int) -> None:
    """And are answered as what they are."""
    hook = await a_webhook(site)
    answer = await call(site, hook, raw, content_type=kind)
    assert answer.status_code == status, answer.text
    assert await runs(site) == []


async def test_secrets_are_shown_once(site: Site) -> None:
    """The address and the secret are in the answer that made them, in no other, and not in what is kept for a retry."""
    first = await a_webhook(site, signature="sandgate")
    assert first["hook_path"].startswith("/api/v1/hooks/whk_")
    assert first["signing_secret"].startswith("whs_")
    wanted = {"workflow_id": first["workflow_id"], "signature": "github"}
    made, again = [await site.post(WEBHOOKS, wanted, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert made.json()["signing_secret"] != first["signing_secret"]
    assert again.json() == {**made.json(), "hook_path": None, "signing_secret": None}
    shown = await site.get(f"{WEBHOOKS}/{first['webhook_id']}")
    listed = await site.get(WEBHOOKS)
    for secret in (first["hook_path"][14:], first["signing_secret"], made.json()["signing_secret"]):
        assert secret not in shown.text + listed.text
    stored = await site.store.webhooks.find(first["webhook_id"])
    assert first["hook_path"][14:] not in repr(stored)
    assert first["signing_secret"][4:] not in repr(stored)


async def test_rotation_ends_the_old_ones(site: Site) -> None:
    """The token, the secret, or both; nothing else changes."""
    old = await a_webhook(site, signature="sandgate")
    path = f"{WEBHOOKS}/{old['webhook_id']}/rotate"
    new = (await site.post(path)).json()
    assert (new["signing_secret"], new["hook_path"] == old["hook_path"]) == (None, False)
    headers = signed(old, b"1", now(site))
    assert (await call(site, old, b"1", **headers)).status_code == 404
    assert (await call(site, new, b"1", **headers)).status_code == 200
    newer = (await site.post(path, {"token": False, "secret": True})).json()
    assert newer["hook_path"] is None
    assert (await call(site, new, b"2", **signed(old, b"2", now(site)))).status_code == 404
    assert (await call(site, new, b"2", **signed(newer, b"2", now(site)))).status_code == 200
    plain = await a_webhook(site)
    refused = await site.post(f"{WEBHOOKS}/{plain['webhook_id']}/rotate", {"secret": True})
    assert refused.status_code == 400


async def test_what_is_not_let_in_looks_the_same(site: Site) -> None:
    """An unknown address, a disabled one, one of a deleted webhook, every wrong signature: word for word."""
    hook = await a_webhook(site, signature="sandgate")
    off = await a_webhook(site, enabled=False)
    gone = await a_webhook(site)
    await site.send("DELETE", f"{WEBHOOKS}/{gone['webhook_id']}")
    good = signed(hook, b"1", now(site))
    unknown = {"hook_path": "/api/v1/hooks/whk_" + "A" * 43}
    late, early = signed(hook, b"1", now(site, -301)), signed(hook, b"1", now(site, 301))
    answers = [
        await call(site, unknown, b"1"),
        await call(site, {"hook_path": "/api/v1/hooks/short"}, b"1"),
        await call(site, off, b"1"),
        await call(site, gone, b"1"),
        await call(site, hook, b"1"),
        await call(site, hook, b"2", **good),
        await call(site, hook, b"1", **{**good, "x_sandgate_timestamp": now(site, 1)}),
        await call(site, hook, b"1", **{**good, "x_sandgate_timestamp": "-1"}),
        await call(site, hook, b"1", **{**good, "x_sandgate_timestamp": "9" * 400}),
        await call(site, hook, b"1", **{**good, "x_sandgate_signature": good["x_sandgate_signature"].upper()}),
        await call(site, hook, b"1", **{**good, "x_sandgate_signature": "sha256="}),
        await call(site, hook, b"1", **late),
        await call(site, hook, b"1", **early),
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(404, answers[0].text)}
    assert answers[0].json()["error"]["code"] == "HOOK_NOT_FOUND"
    assert await runs(site) == []
    assert {row["reason"] for row in await deliveries(site, hook)} == {"WRONG_SIGNATURE"}
    assert [row["reason"] for row in await deliveries(site, off)] == ["DISABLED"]
    assert (await call(site, hook, b"1", **good)).status_code == 200


async def test_the_same_work_is_done_for_a_stranger(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown address costs the secret and the signatures that a known one costs."""
    hook = await a_webhook(site, signature="sandgate")
    derived: list[str] = []
    derive = WebhookService._secret

    def count(service: WebhookService, webhook: Webhook) -> bytes:
        derived.append(webhook.webhook_id)
        return derive(service, webhook)

    monkeypatch.setattr(WebhookService, "_secret", count)
    await call(site, hook, b"1")
    await call(site, {"hook_path": "/api/v1/hooks/whk_" + "A" * 43}, b"1")
    assert len(derived) == 2


async def test_a_request_that_is_sent_again_starts_one_run(site: Site) -> None:
    """By the sender's id for it for a day, and by its signature, whatever else a thief changes."""
    hook = await a_webhook(site, signature="sandgate")
    first = await call(site, hook, b"1", idempotency_key="a", **signed(hook, b"1", now(site)))
    site.clock.advance(2)
    retried = await call(site, hook, b"1", idempotency_key="a", **signed(hook, b"1", now(site)))
    assert retried.json() == {"status": "duplicate", "run_id": first.json()["run_id"]}
    stolen = signed(hook, b"1", now(site, -2))
    replayed = await call(site, hook, b"1", idempotency_key="b", **stolen)
    assert replayed.json() == {"status": "duplicate", "run_id": first.json()["run_id"]}
    # Neither a thief's id nor the second signature opens a way.
    again = await call(site, hook, b"1", idempotency_key="c", **signed(hook, b"1", now(site)))
    assert again.json()["status"] == "duplicate"
    other = await call(site, hook, b"2", idempotency_key="b", **signed(hook, b"2", now(site)))
    assert other.json()["status"] == "accepted"
    assert len(await runs(site)) == 2


async def test_so_does_one_that_comes_while_another_version_does(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it came before is no reason to begin with the newer version."""
    hook = await a_webhook(site)
    first = await call(site, hook, b"1", x_github_delivery="x")
    find = site.store.workflows.find

    async def find_and_replace(workflow_id: WorkflowId) -> Workflow | None:
        found = await find(workflow_id)
        monkeypatch.setattr(site.store.workflows, "find", find)
        definition = {"name": "w", "steps": ASK, "inputs": EVENT, "description": "newer"}
        assert (await site.send("PUT", f"{ORCHESTRATOR}/workflows/{workflow_id}", json=definition)).status_code == 200
        return found

    monkeypatch.setattr(site.store.workflows, "find", find_and_replace)
    again = await call(site, hook, b"1", x_github_delivery="x")
    assert again.json() == {"status": "duplicate", "run_id": first.json()["run_id"]}
    assert [row["status"] for row in await deliveries(site, hook)] == ["duplicate", "accepted"]


async def test_the_sender_s_id_counts_for_a_day(site: Site) -> None:
    """As GitHub and others send it."""
    hook = await a_webhook(site)
    answers = [await call(site, hook, b"1", x_github_delivery=id_) for id_ in ("x", "x", "y")]
    assert [answer.json()["status"] for answer in answers] == ["accepted", "duplicate", "accepted"]
    assert [row["status"] for row in await deliveries(site, hook)] == ["accepted", "duplicate", "accepted"]
    site.clock.advance(86_401)
    assert (await call(site, hook, b"1", x_github_delivery="x")).json()["status"] == "accepted"


async def test_github_s_form_is_taken(site: Site) -> None:
    """With the header and the bytes that GitHub signs."""
    hook = await a_webhook(site, signature="github")
    mac = hmac.new(hook["signing_secret"].encode(), b"{}", hashlib.sha256).hexdigest()
    assert (await call(site, hook, b"{}", x_hub_signature_256=f"sha256={mac}")).status_code == 200
    assert (await call(site, hook, b"[]", x_hub_signature_256=f"sha256={mac}")).status_code == 404
    assert (await call(site, hook, b"{}", **signed(hook, b"{}", now(site)))).status_code == 404


async def test_a_filter_lets_some_through(site: Site) -> None:
    """What it does not let through starts nothing; what it cannot judge is refused and noted."""
    hook = await a_webhook(site, filter="inputs.event.headers['x-github-event'] == 'push'")
    ignored = await call(site, hook, b"{}", x_github_event="ping")
    assert ignored.json() == {"status": "ignored", "run_id": None}
    assert (await call(site, hook, b"{}", x_github_event="push")).json()["status"] == "accepted"
    assert (await call(site, hook, b"{}")).json()["error"]["code"] == "EXPRESSION_INVALID"
    assert [row["status"] for row in await deliveries(site, hook)] == ["refused", "accepted", "ignored"]
    path = f"{WEBHOOKS}/{hook['webhook_id']}"
    for wrong in ("steps.a.outputs", "success()", "(", "nothing"):
        assert (await site.send("PATCH", path, json={"filter": wrong})).status_code == 400
    assert (await site.send("PATCH", path, json={"filter": ""})).json()["filter"] is None
    assert (await call(site, hook, b"{}")).json()["status"] == "accepted"


async def test_changes(site: Site) -> None:
    """A webhook that has to be signed from now on gets a secret; one that has not loses it."""
    hook = await a_webhook(site, inputs={"n": {"type": "integer"}})
    path = f"{WEBHOOKS}/{hook['webhook_id']}"
    changed = (await site.send("PATCH", path, json={"signature": "github", "inputs": {"n": 3}, "name": "x"})).json()
    assert (changed["name"], changed["inputs"], changed["hook_path"]) == ("x", {"n": 3}, None)
    assert changed["signing_secret"]
    assert (await call(site, hook, b"1")).status_code == 404
    back = (await site.send("PATCH", path, json={"signature": "none"})).json()
    assert back["signing_secret"] is None
    assert (await call(site, hook, b"1")).status_code == 200
    assert (await runs(site))[0]["inputs"]["n"] == 3
    refused: list[dict[str, Any]] = [{"inputs": {"event": {}}}, {"inputs": {"x": 1}}, {"signature": "md5"}, {}]
    for wrong in refused:
        assert (await site.send("PATCH", path, json=wrong)).status_code == 400


async def test_a_workflow_has_to_take_an_event(site: Site) -> None:
    """An input ``event`` of type object; all other required ones are given with the webhook."""
    unfit: list[dict[str, Any]] = [{}, {"event": {}}, {**EVENT, "n": {"required": True}}]
    for inputs in unfit:
        definition = {"name": "w", "steps": ASK, "inputs": inputs}
        workflow = await site.post(f"{ORCHESTRATOR}/workflows", definition)
        answer = await site.post(WEBHOOKS, {"workflow_id": workflow.json()["workflow_id"]})
        assert answer.status_code == 400, inputs


async def test_one_webhook_takes_so_much(site: Site) -> None:
    """Then 429 with the time to wait, while others go on; requests that are not let in cost it nothing."""
    hook, other = await a_webhook(site), await a_webhook(site, signature="sandgate")
    for _ in range(site.settings.webhook_rate_per_minute + 5):
        assert (await call(site, other, b"1")).status_code == 404
    answers = [await call(site, hook, b"1") for _ in range(site.settings.webhook_rate_per_minute)]
    assert {answer.status_code for answer in answers} == {200}
    full = await call(site, hook, b"1")
    assert (full.status_code, full.headers["retry-after"]) == (429, "1")
    assert (await call(site, other, b"1", **signed(other, b"1", now(site)))).status_code == 200
    site.clock.advance(1)
    assert (await call(site, hook, b"1")).status_code == 200
    assert len(await deliveries(site, hook)) == 50


async def test_a_disabled_owner_starts_nothing(site: Site) -> None:
    """It is refused, and noted for whoever looks."""
    hook = await a_webhook(site)
    user = site.accounts["user"].principal
    await site.users.update(site.accounts["admin"].principal, user.user_id, disabled=True)
    assert (await call(site, hook, b"1")).status_code == 403
    await site.webhooks.stop()
    noted = (await site.get(f"{WEBHOOKS}/{hook['webhook_id']}/deliveries", "admin")).json()["deliveries"]
    assert [(row["status"], row["reason"]) for row in noted] == [("refused", "FORBIDDEN")]


async def test_a_deleted_workflow_takes_its_webhooks_along(site: Site) -> None:
    """Their addresses are as if they had never been."""
    hook = await a_webhook(site)
    await site.send("DELETE", f"{ORCHESTRATOR}/workflows/{hook['workflow_id']}")
    assert (await call(site, hook, b"1")).status_code == 404
    assert (await site.get(WEBHOOKS)).json()["webhooks"] == []


async def test_only_post_is_known(site: Site) -> None:
    """And the answer does not repeat the address."""
    hook = await a_webhook(site)
    answer = await site.get(hook["hook_path"], None)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert hook["hook_path"][14:] not in answer.text
