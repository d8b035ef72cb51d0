"""Rows of the audit log: added by many at once, never changed, and gone only when their time is over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from sandgate.core.audit import AuditChain, AuditEntry, AuditOutcome, Credential
from sandgate.core.errors import StoreUnavailable
from sandgate.core.ids import UserId, make_audit_id
from sandgate.store.audit_verify import verify_log
from sandgate.store.base import AuditFilter
from sandgate.store.connections import Location
from sandgate.store.database import Database
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, OTHER, OWNER, STRANGE_TEXT

CHAIN = AuditChain(b"k" * 32)


def an_entry(**changes: object) -> AuditEntry:
    """Something that was done."""
    entry = AuditEntry(
        audit_id=make_audit_id(),
        at=NOW,
        action="create_user",
        outcome=AuditOutcome.DONE,
        credential=Credential.TOKEN,
        actor_id=OWNER,
        actor_name="ann",
        credential_id="tok-1",
        resource_id="user-2",
        status=201,
        address="2001:db8::1",
        request_id="req-1",
        details={"role": "user", "fields": ["password"], "count": 3},
    )
    return replace(entry, **changes)  # type: ignore[arg-type]


@pytest.fixture
async def others(location: Location, store: SqlStore) -> AsyncIterator[list[SqlStore]]:
    """Other servers, or commands, on the same database."""
    opened = [SqlStore(location, read_threads=1, checkpoint=False) for _ in range(3)]
    for each in opened:
        await each.open()
    yield opened
    for each in opened:
        await each.close()


async def test_entries_come_back_as_they_were(store: SqlStore) -> None:
    """Newest first, numbered without a gap, whatever their texts are."""
    entries = [an_entry(), an_entry(actor_id=None, status=None, details={}), an_entry(resource_id=STRANGE_TEXT[:80])]
    assert await store.audit.append(entries, CHAIN) == 3
    rows = await store.audit.list(AuditFilter(), None, 10)
    assert [row.entry for row in rows] == entries[::-1]
    assert [row.number for row in rows] == [3, 2, 1]
    check = await verify_log(store.audit, CHAIN)
    assert (check.problems, check.checked) == ([], 3)


async def test_an_entry_that_is_there_is_not_added_again(store: SqlStore) -> None:
    """So that it may be handed in again when nobody knows whether it was written."""
    first, second = an_entry(), an_entry()
    await store.audit.append([first], CHAIN)
    assert await store.audit.append([first, second], CHAIN) == 2
    assert await store.audit.append([first, second], CHAIN) == 2
    assert [row.entry for row in await store.audit.read(0, 10)] == [first, second]


async def _append(store: SqlStore, entries: list[AuditEntry]) -> None:
    """Again after a lock that somebody had for too long, as whoever writes the log does."""
    while True:
        with suppress(StoreUnavailable):
            await store.audit.append(entries, CHAIN)
            return


async def test_servers_side_by_side_make_one_chain(store: SqlStore, others: list[SqlStore]) -> None:
    """However many add at once, each row follows the one before it."""

    async def add(each: SqlStore) -> None:
        for _ in range(8):
            await _append(each, [an_entry(), an_entry()])

    await asyncio.gather(*(add(each) for each in [store, *others]))
    check = await verify_log(store.audit, CHAIN)
    assert (check.problems, check.checked) == ([], 64)


async def test_verifying_beside_those_who_add_finds_nothing(store: SqlStore, others: list[SqlStore]) -> None:
    """Rows that come meanwhile are no problem."""
    adding = asyncio.gather(*(_append(each, [an_entry()]) for each in others for _ in range(10)))
    while not adding.done():
        assert (await verify_log(store.audit, CHAIN)).problems == []
    await adding
    assert (await verify_log(store.audit, CHAIN)).checked == 30


async def test_rows_are_found_by_what_is_known_of_them(store: SqlStore) -> None:
    """Each filter by itself and all together, in pages."""
    odd = an_entry(
        actor_id=OTHER, action="delete_user", resource_id="user-9", outcome=AuditOutcome.REFUSED,
        at=NOW + timedelta(hours=1),
    )  # fmt: skip
    await store.audit.append([an_entry(), odd, an_entry()], CHAIN)
    soon = NOW + timedelta(minutes=1)
    for wanted in (
        AuditFilter(actor_id=OTHER),
        AuditFilter(action="delete_user"),
        AuditFilter(resource_id="user-9"),
        AuditFilter(outcome=AuditOutcome.REFUSED),
        AuditFilter(after=soon),
        AuditFilter(OTHER, "delete_user", "user-9", AuditOutcome.REFUSED, soon, soon + timedelta(hours=2)),
    ):
        assert [row.entry for row in await store.audit.list(wanted, None, 10)] == [odd]
    assert [row.number for row in await store.audit.list(AuditFilter(before=soon), None, 10)] == [3, 1]
    assert [row.number for row in await store.audit.list(AuditFilter(), 3, 1)] == [2]
    assert await store.audit.list(AuditFilter(actor_id=UserId("user-none")), None, 10) == []


FORBIDDEN = (
    "UPDATE audit_log SET action = 'nothing' WHERE number = 2",
    "DELETE FROM audit_log WHERE number = 2",
    "DELETE FROM audit_log",
    "UPDATE audit_head SET number = 1",
    "UPDATE audit_head SET first_number = 0",
    "DELETE FROM audit_head",
)


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_the_database_refuses_to_change_rows(store: SqlStore, database: Database, statement: str) -> None:
    """Whoever's statement it is."""
    await store.audit.append([an_entry() for _ in range(3)], CHAIN)

    def work(connection: Connection) -> None:
        with pytest.raises(sa.exc.DBAPIError, match="audit log"), connection.begin_nested():
            connection.exec_driver_sql(statement)

    await database.write(work)
    assert (await verify_log(store.audit, CHAIN)).problems == []


@pytest.mark.parametrize("location", [pytest.param("postgresql", marks=pytest.mark.needs_postgresql)], indirect=True)
async def test_the_log_cannot_be_emptied_at_once(store: SqlStore, database: Database) -> None:
    """TRUNCATE asks no rows."""

    def work(connection: Connection) -> None:
        with pytest.raises(sa.exc.DBAPIError, match="never emptied"), connection.begin_nested():
            connection.exec_driver_sql("TRUNCATE audit_log")

    await database.write(work)


TAMPERING = (
    ("UPDATE audit_log SET outcome = 'refused' WHERE number = 3", "Row 3 ("),
    ("UPDATE audit_log SET outcome = 'no such outcome' WHERE number = 3", "Row 3 ("),
    ("UPDATE audit_log SET details = '{' WHERE number = 3", "Row 3 ("),
    ("UPDATE audit_log SET at = at + 1 WHERE number = 4", "Row 4 ("),
    ("DELETE FROM audit_log WHERE number = 3", "Row 3 is missing"),
    ("DELETE FROM audit_log WHERE number > 3", "Rows 4 to 5 are missing"),
    ("DELETE FROM audit_log WHERE number < 3", "Rows 1 to 2 are missing"),
    ("DELETE FROM audit_log", "Rows 1 to 5 are missing"),
    ("UPDATE audit_log SET number = 6 WHERE number = 3", "Row 3 is missing"),
    ("UPDATE audit_head SET number = 4", "The record of where the log begins and ends was changed"),
    ("DELETE FROM audit_head", "The record of where the log begins and ends is missing"),
)


@pytest.mark.parametrize(("statement", "told"), TAMPERING)
async def test_what_was_done_past_the_guard_is_told(
    store: SqlStore, database: Database, statement: str, told: str
) -> None:
    """By whoever owns the database and takes the triggers away."""
    await store.audit.append([an_entry() for _ in range(5)], CHAIN)

    def work(connection: Connection) -> None:
        if connection.dialect.name == "sqlite":
            names = ("audit_log_keeps_rows", "audit_log_loses_none", "audit_head_goes_on", "audit_head_stays")
            for name in names:
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql(statement)

    await database.write(work)
    problems = (await verify_log(store.audit, CHAIN)).problems
    assert any(problem.startswith(told) for problem in problems), problems
    # What comes after is still taken.
    await store.audit.append([an_entry()], CHAIN)


async def test_old_rows_go_from_the_beginning(store: SqlStore) -> None:
    """A chain whose beginning is over is still a chain; what is not older stays, and so does what comes after it."""
    old = [an_entry(at=NOW - timedelta(days=days)) for days in (9, 8, 7)]
    await store.audit.append([*old, an_entry(), an_entry(at=NOW - timedelta(days=9))], CHAIN)
    before = NOW - timedelta(days=1)
    assert await store.audit.prune(before, 2, CHAIN) == 2
    assert await store.audit.prune(before, 2, CHAIN) == 1
    assert await store.audit.prune(before, 2, CHAIN) == 0
    check = await verify_log(store.audit, CHAIN)
    assert (check.problems, check.checked) == ([], 2)
    assert [row.number for row in await store.audit.read(0, 10)] == [4, 5]
