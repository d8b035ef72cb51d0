"""First answers by idempotency key."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from sandgate.core.errors import IdempotencyInProgress
from sandgate.core.idempotency import KeptAnswer, KeyClaim
from sandgate.core.ids import UserId, WorkflowId
from sandgate.store.base import RunChange, SavedAnswer
from sandgate.store.connections import Location, connector_for
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import (
    NOW,
    OTHER,
    OWNER,
    STRANGE_TEXT,
    a_run,
    a_schedule,
    a_user,
    a_workflow,
    an_api_key,
    an_environment,
)

DAY = timedelta(days=1)
REQUEST = bytes(32)


def _one(key: str = "key", user: UserId = OWNER, claim_id: str = "claim-1", server: str = "one") -> KeyClaim:
    return KeyClaim(user, key, claim_id, server)


async def _claim(
    store: SqlStore,
    key: str = "key",
    user: UserId = OWNER,
    at: datetime = NOW,
    request: bytes = REQUEST,
    server: str = "one",
    claim_id: str = "claim-1",
) -> SavedAnswer | None:
    return await store.idempotency.claim(_one(key, user, claim_id, server), request, at=at, fresh_after=at - DAY)


async def test_a_key_is_claimed_answered_and_answered_again(store: SqlStore) -> None:
    """The first request gets it; later ones see that it is taken, and then the answer."""
    assert await _claim(store) is None
    later = NOW + timedelta(seconds=1)
    assert await _claim(store, at=later, request=b"x" * 32) == SavedAnswer(REQUEST, None, b"", NOW)
    await store.idempotency.save(_one("key"), 201, b'{"a": "\xff\0"}')
    saved = SavedAnswer(REQUEST, 201, b'{"a": "\xff\0"}', NOW)
    assert await _claim(store, at=later) == saved
    await store.idempotency.save(_one("key"), 500, b"")
    await store.idempotency.release(_one("key"))
    assert await _claim(store, at=later) == saved


async def test_keys_belong_to_users(store: SqlStore) -> None:
    """The same key of two users, and keys that look alike, are different."""
    for user in (OWNER, OTHER):
        for key in ("key", "Key", "key ", "", STRANGE_TEXT, "\0", "\\u0000"):
            assert await _claim(store, key, user) is None
            assert await _claim(store, key, user) is not None


async def test_a_released_key_can_be_claimed(store: SqlStore) -> None:
    """As if it had never been used."""
    await _claim(store)
    await store.idempotency.release(_one("key"))
    await store.idempotency.release(_one("key"))
    assert await _claim(store) is None


async def test_an_old_answer_makes_room(store: SqlStore) -> None:
    """Exactly when it is older than what still counts."""
    await _claim(store)
    await store.idempotency.save(_one("key"), 201, b"old")
    assert await _claim(store, at=NOW + DAY) is not None
    after = NOW + DAY + timedelta(microseconds=1)
    assert await _claim(store, at=after, request=b"n" * 32) is None
    assert await _claim(store, at=after) == SavedAnswer(b"n" * 32, None, b"", after)


async def test_one_of_many_claims_wins(store: SqlStore, location: Location) -> None:
    """Also when the others come from another process, and when an old row is in the way."""
    other_store = SqlStore(location, checkpoint=False)
    await other_store.open()
    for at in (NOW, NOW + 2 * DAY):
        claims = [_claim(each, at=at, request=bytes([number])) for number, each in enumerate([store, other_store] * 8)]
        results = await asyncio.gather(*claims)
        winner = results.index(None)
        assert results.count(None) == 1
        assert {result for result in results if result} == {SavedAnswer(bytes([winner]), None, b"", at)}
    await other_store.close()


async def test_unanswered_keys_are_given_back_at_the_start(store: SqlStore) -> None:
    """Answers stay."""
    for key in ("a", "b", "c"):
        await _claim(store, key)
    await store.idempotency.save(_one("b"), 200, b"B")
    assert await store.idempotency.release_unanswered() == 2
    assert await _claim(store, "a") is None
    assert await _claim(store, "b") is not None


async def test_a_draft_is_the_answer_once_nobody_can_give_another(store: SqlStore) -> None:
    """It is written with the run; until then the key is taken, and a real answer takes its place."""
    workflow = a_workflow()
    await store.workflows.insert(workflow)
    for key in ("died", "refused", "answered"):
        await _claim(store, key)
        run = a_run(workflow.workflow_id)
        assert await store.runs.insert(RunChange(run), answer=KeptAnswer(_one(key), None, b"draft"))
        assert await _claim(store, key) == SavedAnswer(REQUEST, None, b"draft", NOW)
    await _claim(store, "no run")
    missing = a_run(WorkflowId("workflow-000000000000"))
    assert not await store.runs.insert(RunChange(missing), answer=KeptAnswer(_one("no run"), None, b"draft"))
    await store.idempotency.release(_one("refused"))
    await store.idempotency.save(_one("answered"), 200, b"answer")
    assert await store.idempotency.release_unanswered() == 1
    assert await _claim(store, "died") == SavedAnswer(REQUEST, 200, b"draft", NOW)
    assert await _claim(store, "refused") == SavedAnswer(REQUEST, 200, b"draft", NOW)
    assert await _claim(store, "answered") == SavedAnswer(REQUEST, 200, b"answer", NOW)
    assert await _claim(store, "no run") is None


async def test_old_keys_are_pruned(store: SqlStore) -> None:
    """Answered or not."""
    await _claim(store, "a")
    await _claim(store, "b", at=NOW + DAY)
    assert await store.idempotency.prune(NOW + DAY) == 1
    assert await _claim(store, "a") is None
    assert await _claim(store, "b") is not None


async def test_a_dead_servers_keys_are_given_back_and_no_others(store: SqlStore) -> None:
    """What a live one is working on stays taken."""
    for server in ("one", "two"):
        await _claim(store, server, server=server)
    assert await store.idempotency.release_unanswered("one") == 1
    assert await _claim(store, "one") is None
    assert await _claim(store, "two") == SavedAnswer(REQUEST, None, b"", NOW)


async def test_a_claim_is_no_other_claim_of_its_key(store: SqlStore) -> None:
    """Given back and taken anew, the key is not the first request's any more."""
    await _claim(store)
    await store.idempotency.release(_one())
    await _claim(store, claim_id="claim-2")
    await store.idempotency.save(_one(), 200, b"late")
    await store.idempotency.release(_one())
    assert await store.idempotency.find(OWNER, "key") == SavedAnswer(REQUEST, None, b"", NOW)
    await store.idempotency.save(_one(claim_id="claim-2"), 200, b"answer")
    assert await store.idempotency.find(OWNER, "key") == SavedAnswer(REQUEST, 200, b"answer", NOW)
    assert await store.idempotency.find(OWNER, "unknown") is None


Insert = Callable[[SqlStore, KeptAnswer], Awaitable[object]]


async def _insert_api_key(store: SqlStore, answer: KeptAnswer) -> None:
    user = a_user()
    await store.users.insert(user)
    await store.credentials.insert_api_key(an_api_key(user), answer)


async def _insert_schedule(store: SqlStore, answer: KeptAnswer) -> None:
    workflow = a_workflow()
    await store.workflows.insert(workflow)
    await store.schedules.insert(a_schedule(workflow.workflow_id), 1000, answer)


async def _insert_run(store: SqlStore, answer: KeptAnswer) -> None:
    workflow = a_workflow()
    await store.workflows.insert(workflow)
    await store.runs.insert(RunChange(a_run(workflow.workflow_id)), answer=answer)


INSERTS: dict[str, Insert] = {
    "environments": lambda store, answer: store.environments.insert(an_environment(), answer),
    "workflows": lambda store, answer: store.workflows.insert(a_workflow(), answer),
    "users": lambda store, answer: store.users.insert(a_user(), answer),
    "api_keys": _insert_api_key,
    "schedules": _insert_schedule,
    "runs": _insert_run,
}


@pytest.mark.parametrize("kind", INSERTS)
async def test_a_row_and_its_answer_are_one_write(kind: str, store: SqlStore, location: Location) -> None:
    """Both are there, or neither is."""
    await _claim(store)
    await INSERTS[kind](store, KeptAnswer(_one(), 201, b"made"))
    assert await store.idempotency.find(OWNER, "key") == SavedAnswer(REQUEST, 201, b"made", NOW)
    before = _count(location, kind)
    with pytest.raises(IdempotencyInProgress):
        await INSERTS[kind](store, KeptAnswer(_one("given back"), 201, b"made"))
    with pytest.raises(IdempotencyInProgress):
        await INSERTS[kind](store, KeptAnswer(_one(claim_id="another"), 201, b"made"))
    assert _count(location, kind) == before == 1


def _count(location: Location, table: str) -> int:
    with connector_for(location, checkpoint=False).reader.connect() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())
