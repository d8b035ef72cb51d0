"""What every database promises about webhooks: however often and wherever a delivery comes, it starts one run."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sandgate.core.ids import RunId, WorkflowId, make_delivery_id, make_webhook_id, make_workflow_id
from sandgate.core.page import PageRequest
from sandgate.core.run import Run, RunStatus
from sandgate.core.trigger import Delivery, DeliveryStatus, Signature, TriggerType, Webhook
from sandgate.store.base import DeliveryKeys, RunChange, RunFilter
from sandgate.store.connections import Location
from sandgate.store.sql_store import SqlStore
from sandgate.store.webhooks import MOST_DELIVERIES
from tests.contract.store.records import NOW, OTHER, OWNER, STRANGE_TEXT, a_last_word, a_run, a_workflow

PAGE = PageRequest()


def a_webhook(workflow_id: WorkflowId, **changes: Any) -> Webhook:
    """A webhook of a workflow."""
    webhook_id = make_webhook_id()
    webhook = Webhook(
        webhook_id=webhook_id,
        workflow_id=workflow_id,
        owner_id=OWNER,
        name=STRANGE_TEXT,
        token_sha256=webhook_id.encode().ljust(40, b"\0"),
        created_at=NOW,
        updated_at=NOW,
        signature=Signature.GITHUB,
        salt=bytes(range(16)),
        filter="inputs.event.body",
        inputs={"x": STRANGE_TEXT},
    )
    return replace(webhook, **changes)


async def _webhook(store: SqlStore, **changes: Any) -> Webhook:
    workflow = a_workflow()
    await store.workflows.insert(workflow)
    webhook = a_webhook(workflow.workflow_id, **changes)
    assert await store.webhooks.insert(webhook, 100)
    return webhook


def _delivery(webhook: Webhook, **changes: Any) -> Delivery:
    delivery = Delivery(make_delivery_id(), webhook.webhook_id, NOW, DeliveryStatus.ACCEPTED, 12, "application/json")
    return replace(delivery, **changes)


def _run(webhook: Webhook) -> Run:
    return a_run(webhook.workflow_id, trigger_type=TriggerType.WEBHOOK, trigger_id=webhook.webhook_id)


async def _accept(
    store: SqlStore, webhook: Webhook, sender: bytes | None, signature: bytes | None = None, **more: Any
) -> tuple[Run, RunId | None]:
    run, delivery = _run(webhook), _delivery(webhook, **more)
    keys, fresh_after = DeliveryKeys(sender, signature), delivery.received_at - timedelta(hours=24)
    return run, await store.webhooks.accept(delivery, keys, RunChange(run), fresh_after=fresh_after)


async def test_a_webhook_comes_back_as_it_was(store: SqlStore) -> None:
    """By its id and by its token; of two writers one wins."""
    webhook = await _webhook(store)
    assert await store.webhooks.find(webhook.webhook_id) == webhook
    assert await store.webhooks.find_by_token(webhook.token_sha256) == webhook
    assert await store.webhooks.find(make_webhook_id()) is None
    assert await store.webhooks.find_by_token(b"x") is None
    later = NOW + timedelta(seconds=1)
    changed = replace(webhook, enabled=False, signature=Signature.NONE, salt=None, filter=None, updated_at=later)
    assert await store.webhooks.replace(webhook, changed)
    assert not await store.webhooks.replace(webhook, replace(webhook, name="lost"))
    assert await store.webhooks.find(webhook.webhook_id) == changed


async def test_webhooks_are_listed_counted_and_deleted(store: SqlStore) -> None:
    """By owner and by workflow; with a workflow its webhooks go, and all that came to them."""
    made = [await _webhook(store), await _webhook(store, owner_id=OTHER), await _webhook(store)]
    assert (await store.webhooks.list(None, None, PAGE)).items == tuple(made[::-1])
    assert (await store.webhooks.list(OWNER, made[0].workflow_id, PAGE)).items == (made[0],)
    one_more = replace(made[0], webhook_id=make_webhook_id(), token_sha256=b"other")
    assert await store.webhooks.insert(one_more, 2) is False
    assert await store.webhooks.insert(replace(one_more, workflow_id=make_workflow_id()), 9) is None
    await _accept(store, made[0], b"a")
    assert await store.webhooks.delete(made[0].webhook_id)
    assert not await store.webhooks.delete(made[0].webhook_id)
    assert await store.webhooks.list_deliveries(made[0].webhook_id) == []
    await _accept(store, made[1], b"a")
    await store.workflows.delete(made[1].workflow_id, NOW, a_last_word)
    assert await store.webhooks.find(made[1].webhook_id) is None
    assert await store.webhooks.list_deliveries(made[1].webhook_id) == []
    assert await store.webhooks.find(made[2].webhook_id) == made[2]


async def test_a_delivery_is_known_by_its_keys(store: SqlStore) -> None:
    """By either of them, for as long as is asked; only of its own webhook."""
    webhook, other = await _webhook(store), await _webhook(store)
    run, answered = await _accept(store, webhook, b"id", b"signature")
    assert answered == run.run_id
    assert await store.runs.find(run.run_id) == run
    for sender, signature in ((b"id", None), (None, b"signature"), (b"thief", b"signature"), (b"id", b"second")):
        again, answered = await _accept(store, webhook, sender, signature)
        assert answered == run.run_id
        assert await store.runs.find(again.run_id) is None
    # The second signature is known now, the thief's id is not.
    assert (await _accept(store, webhook, b"new", b"second"))[1] == run.run_id
    fresh, answered = await _accept(store, webhook, b"thief", b"third")
    assert answered == fresh.run_id
    fresh, answered = await _accept(store, other, b"id", b"signature")
    assert answered == fresh.run_id
    late, answered = await _accept(store, webhook, b"id", received_at=NOW + timedelta(hours=25))
    assert answered == late.run_id


async def test_one_delivery_in_many_processes_is_one_run(store: SqlStore, location: Location) -> None:
    """Connections of other processes take the same delivery at once; all answer the run of one of them."""
    webhook = await _webhook(store)
    other = SqlStore(location, read_threads=1, checkpoint=False)
    await other.open()
    for number in range(10):
        tries = [_accept(at, webhook, b"id%d" % number, b"s%d" % number) for at in (store, other) for _ in range(4)]
        answers = await asyncio.gather(*tries)
        assert len({answered for _, answered in answers}) == 1
        assert sum(run.run_id == answered for run, answered in answers) == 1
    assert len((await store.runs.list(RunFilter(), PageRequest(200))).items) == 10
    await other.close()


async def test_nothing_is_taken_for_what_was_deleted(store: SqlStore) -> None:
    """Neither for a webhook nor for a workflow that is gone: no run, no trace."""
    webhook, other = await _webhook(store), await _webhook(store)
    await store.webhooks.delete(webhook.webhook_id)
    await store.workflows.delete(other.workflow_id, NOW, a_last_word)
    for gone in (webhook, other):
        run, answered = await _accept(store, gone, b"id")
        assert answered is None
        assert await store.runs.find(run.run_id) is None
        await store.webhooks.note(_delivery(gone))
        assert await store.webhooks.list_deliveries(gone.webhook_id) == []


async def test_the_last_deliveries_are_kept(store: SqlStore) -> None:
    """Newest first, so many of each webhook."""
    webhook, other = await _webhook(store), await _webhook(store)
    await store.webhooks.note(_delivery(other))
    made = [_delivery(webhook, status=DeliveryStatus.REFUSED, reason=STRANGE_TEXT) for _ in range(MOST_DELIVERIES + 3)]
    for delivery in made:
        await store.webhooks.note(delivery)
    assert list(await store.webhooks.list_deliveries(webhook.webhook_id)) == made[:2:-1]
    assert len(await store.webhooks.list_deliveries(other.webhook_id)) == 1


async def test_deliveries_go_with_their_run_and_their_keys_stay(store: SqlStore) -> None:
    """When a run is removed because its time is over, what comes again still starts no other one."""
    webhook = await _webhook(store)
    run, _ = await _accept(store, webhook, b"first")
    other, _ = await _accept(store, webhook, b"second")
    over = replace(run, status=RunStatus.FAILED, finished_at=NOW)
    assert await store.runs.apply(RunChange(over))
    assert await store.retention.prune_runs(NOW + timedelta(seconds=1), 10) == 1
    assert [delivery.run_id for delivery in await store.webhooks.list_deliveries(webhook.webhook_id)] == [other.run_id]
    assert (await _accept(store, webhook, b"first"))[1] == run.run_id
