"""How writes share transactions, and how they do not share their failures."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection

from sandgate.core.errors import StoreUnavailable
from sandgate.core.ids import make_delivery_id
from sandgate.core.trigger import Delivery, DeliveryStatus
from sandgate.store import jobs
from sandgate.store.base import DeliveryKeys, RunChange, VersionGone
from sandgate.store.connections import Location
from sandgate.store.database import Database
from sandgate.store.runs import SqlRunStore
from sandgate.store.schedules import SqlScheduleStore
from sandgate.store.schema import revoked_tokens
from sandgate.store.sql_store import SqlStore
from sandgate.store.webhooks import SqlWebhookStore
from sandgate.store.workflows import SqlWorkflowStore
from tests.contract.store.records import NOW, a_run, a_schedule, a_workflow
from tests.contract.store.test_webhooks import a_webhook

WAIT_S = 20.0


@pytest.fixture
async def database(location: Location, store: SqlStore) -> AsyncIterator[Database]:
    """The only writer of a database with tables; the store only reads."""
    opened = Database(location, read_threads=1)
    await opened.open()
    yield opened
    await opened.close()


class Gate:
    """Holds up the writer's thread until it is opened, so that what is written meanwhile has to queue."""

    def __init__(self, database: Database) -> None:
        self._entered = threading.Event()
        self._opened = threading.Event()
        self._task = asyncio.create_task(database.write(self._hold))

    async def __aenter__(self) -> "Gate":
        assert await asyncio.to_thread(self._entered.wait, WAIT_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._opened.set()
        await asyncio.gather(self._task, return_exceptions=True)

    def _hold(self, _connection: Connection) -> None:
        self._entered.set()
        assert self._opened.wait(WAIT_S)


def _insert(token: str) -> Callable[[Connection], Any]:
    def work(connection: Connection) -> Any:
        connection.execute(revoked_tokens.insert(), {"token_id": token, "expires_at": NOW})
        return connection.get_transaction()

    return work


def _insert_and_raise(token: str) -> Callable[[Connection], Any]:
    def work(connection: Connection) -> Any:
        _insert(token)(connection)
        raise ZeroDivisionError(token)

    return work


async def _queue(*writes: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Start the writes and let each get as far as the queue."""
    tasks = [asyncio.create_task(write) for write in writes]
    await asyncio.sleep(0)
    return tasks


async def test_writes_that_arrive_together_share_a_transaction(database: Database) -> None:
    """All that waited while the writer was busy are committed at once."""
    async with Gate(database):
        tasks = await _queue(*(database.write(_insert(str(number))) for number in range(20)))
    assert len(set(await asyncio.gather(*tasks))) == 1


async def test_a_write_that_fails_fails_alone(database: Database, store: SqlStore) -> None:
    """Its neighbours are kept, its own rows are not, and its caller gets its own exception."""
    names = [str(number) for number in range(9)]
    async with Gate(database):
        works = [_insert_and_raise(name) if name in "258" else _insert(name) for name in names]
        tasks = await _queue(*map(database.write, works))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    failed = {name for name, result in zip(names, results, strict=True) if isinstance(result, ZeroDivisionError)}
    assert failed == {"2", "5", "8"}
    assert [str(results[number]) for number in (2, 5, 8)] == ["2", "5", "8"]
    for name in names:
        assert await store.credentials.is_revoked(name) == (name not in failed)


async def test_a_run_that_comes_too_late_disturbs_no_neighbour(database: Database) -> None:
    """Another version has taken the place of its own: that is told when all is written, and nothing is done twice."""
    workflow = a_workflow()
    workflows = SqlWorkflowStore(database)
    await workflows.insert(workflow)
    await workflows.replace(replace(workflow, version=workflow.version + 1))
    run = a_run(workflow.workflow_id, workflow_version=workflow.version)
    schedule, webhook = a_schedule(workflow.workflow_id), a_webhook(workflow.workflow_id)
    delivery = Delivery(make_delivery_id(), webhook.webhook_id, NOW, DeliveryStatus.ACCEPTED, 1, "text/plain")
    done: list[Connection] = []
    async with Gate(database):
        tasks = await _queue(
            database.write(done.append),
            SqlRunStore(database).insert(RunChange(run)),
            SqlScheduleStore(database).fire(schedule, schedule, RunChange(run)),
            SqlWebhookStore(database).accept(delivery, DeliveryKeys(None, None), RunChange(run), fresh_after=NOW),
            database.write(done.append),
        )
    first, *late, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, last) == (None, None)
    assert [type(told) for told in late] == [VersionGone] * 3
    assert len(done) == 2


async def test_a_statement_that_fails_fails_alone(database: Database, store: SqlStore) -> None:
    """A constraint that stops one write, which ends PostgreSQL's transaction, does not stop its neighbours."""
    async with Gate(database):
        tasks = await _queue(*(database.write(_insert(name)) for name in ("a", "b", "a", "c")))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result).__name__ for result in results] == [
        "RootTransaction",
        "RootTransaction",
        "IntegrityError",
        "RootTransaction",
    ]
    assert all([await store.credentials.is_revoked(name) for name in "abc"])


async def test_writes_are_done_in_the_order_they_came(database: Database) -> None:
    """Also when a neighbour's failure has each done by itself."""
    done: list[int] = []

    def note(number: int) -> Callable[[Connection], None]:
        return lambda _connection: done.append(number)

    async with Gate(database):
        tasks = await _queue(*(database.write(note(number)) for number in range(5)))
        tasks += await _queue(database.write(_insert_and_raise("x")), database.write(note(5)))
    await asyncio.gather(*tasks, return_exceptions=True)
    assert done[-6:] == [0, 1, 2, 3, 4, 5]


async def test_a_cancelled_caller_does_not_take_its_write_back(database: Database, store: SqlStore) -> None:
    """What was accepted is done."""
    async with Gate(database):
        (task,) = await _queue(database.write(_insert("token")))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await database.write(lambda _connection: None)
    assert await store.credentials.is_revoked("token")


async def test_closing_finishes_what_was_accepted(location: Location, store: SqlStore) -> None:
    """And takes nothing more."""
    database = Database(location)
    await database.open()
    async with Gate(database):
        tasks = await _queue(*(database.write(_insert(str(number))) for number in range(5)))
        closing = asyncio.create_task(database.close())
    await asyncio.gather(*tasks, closing)
    assert all([await store.credentials.is_revoked(str(number)) for number in range(5)])
    for refused in (database.write(_insert("late")), database.read(lambda _connection: None)):
        with pytest.raises(StoreUnavailable, match="closed"):
            await refused


async def test_what_a_write_answers_can_be_read_at_once(store: SqlStore) -> None:
    """A read that begins after a write was answered sees it, whichever connection serves it."""
    for number in range(50):
        await store.credentials.revoke_token(str(number), NOW)
        assert await store.credentials.is_revoked(str(number))


async def test_readers_cannot_write(database: Database) -> None:
    """The database itself refuses."""
    with pytest.raises(StoreUnavailable):
        await database.read(_insert("token"))


async def test_one_database_serves_many_event_loops(database: Database, store: SqlStore) -> None:
    """Answers go to the loop that asked."""

    def write_ten(name: str) -> None:
        async def write() -> None:
            await asyncio.gather(*(database.write(_insert(f"{name}{number}")) for number in range(10)))

        asyncio.run(write())

    await asyncio.gather(*(asyncio.to_thread(write_ten, name) for name in "abc"))
    assert all([await store.credentials.is_revoked(f"{name}{number}") for name in "abc" for number in range(10)])


async def test_a_queued_write_that_takes_too_long_is_not_done(location: Location, store: SqlStore) -> None:
    """Its caller may safely do it again."""
    database = Database(location)
    await database.open()
    async with Gate(database):
        database._deadline_s = 0.5
        with pytest.raises(StoreUnavailable, match="Nothing was done") as raised:
            await database.write(_insert("token"))
        assert raised.value.details == {}
    # The rest is not about time.
    database._deadline_s = 20.0
    await database.write(lambda _connection: None)
    assert not await store.credentials.is_revoked("token")
    await database.close()


async def test_a_write_under_way_that_takes_too_long_may_be_done(location: Location, store: SqlStore) -> None:
    """And its caller is told that nobody knows."""
    database = Database(location)
    await database.open()
    # Time enough to begin it, on a machine that is busy.
    database._deadline_s = 3.0
    gate = Gate(database)
    async with gate:
        with pytest.raises(StoreUnavailable) as raised:
            await gate._task
        assert raised.value.details == {"outcome": "unknown"}
    database._deadline_s = 20.0
    await database.close()


async def test_a_queue_that_is_full_refuses(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, and who waits already is still served."""
    monkeypatch.setattr(jobs, "MOST_WAITING", 2)
    async with Gate(database):
        tasks = await _queue(*(database.write(_insert(str(number))) for number in range(2)))
        with pytest.raises(StoreUnavailable, match="too slow"):
            await database.write(_insert("third"))
    await asyncio.gather(*tasks)
