"""What PostgreSQL promises about turns: who waits for whom, and for how long."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from sandgate.core.errors import StoreUnavailable
from sandgate.store import turns as turns_module
from sandgate.store.database import Database
from sandgate.store.turns import Turns, key_of
from tests.contract.store.statements import statements_sent

pytestmark = pytest.mark.needs_postgresql


@pytest.fixture(autouse=True)
def long_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine, too, what is stuck is known to be for as long as a test lasts."""
    monkeypatch.setattr(turns_module, "_STUCK_S", 3600.0)


@pytest.fixture
async def database(clean_postgres_url: str) -> AsyncIterator[Database]:
    """One server's."""
    opened = Database(clean_postgres_url, read_threads=1)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def stopped(clean_postgres_url: str) -> Iterator[psycopg.Connection]:
    """Another server's session, which has turns and does not go on."""
    with psycopg.connect(clean_postgres_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def sent() -> Iterator[list[tuple[str, Any]]]:
    """The statements that the server sends."""
    with statements_sent() as statements:
        yield statements


def _waits(sent: list[tuple[str, Any]]) -> list[str]:
    return [statement for statement, _parameters in sent if "pg_advisory_xact_lock" in statement]


def _take(connection: psycopg.Connection, *turns: str) -> None:
    for turn in turns:
        connection.execute("SELECT pg_advisory_lock(%s)", (key_of(turn),))


def _backend(connection: Connection) -> int:
    return int(connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one())


def _lock_timeout(connection: Connection) -> str:
    return str(connection.execute(sa.text("SHOW lock_timeout")).scalar_one())


async def test_a_turn_that_never_comes_is_waited_for_once(
    database: Database, stopped: psycopg.Connection, sent: list[tuple[str, Any]]
) -> None:
    """However many ask for it; what comes beside them, with a turn or without, is done."""
    _take(stopped, "stuck")
    for _ in range(10):
        asked = [database.write(_backend, turn=turn) for turn in ("stuck", None, "free", "stuck")]
        first, bare, free, last = await asyncio.gather(*asked, return_exceptions=True)
        assert (type(first), type(last)) == (StoreUnavailable, StoreUnavailable)
        assert (type(bare), type(free)) == (int, int)
    assert sum(str(key_of("stuck")) in statement for statement in _waits(sent)) == 1


async def test_a_refused_write_does_not_undo_its_neighbours(database: Database, stopped: psycopg.Connection) -> None:
    """They share a transaction, and theirs is committed."""
    _take(stopped, "stuck")
    written: list[int] = []

    def note(number: int) -> Callable[[Connection], None]:
        return lambda _connection: written.append(number)

    asked = [database.write(note(n), turn="stuck" if n % 2 else None) for n in range(6)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(answer, StoreUnavailable) for answer in answers] == [bool(n % 2) for n in range(6)]
    assert written == [0, 2, 4]


async def test_many_turns_that_never_come_are_waited_for_briefly(
    database: Database, stopped: psycopg.Connection, sent: list[tuple[str, Any]]
) -> None:
    """A server that was stopped in the middle of a large batch has many: only the first costs the usual patience."""
    turns = [str(number) for number in range(8)]
    _take(stopped, *turns)
    for turn in turns:
        with pytest.raises(StoreUnavailable, match="Try again later"):
            await database.write(_backend, turn=turn)
    assert ["lock_timeout = '500ms'" in statement for statement in _waits(sent)] == [True, *[False] * 7]


async def test_it_is_waited_for_again_some_time_later(
    database: Database, stopped: psycopg.Connection, sent: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as ever, where nothing else is stuck."""
    monkeypatch.setattr(turns_module, "_STUCK_S", 0.0)
    _take(stopped, "stuck")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await database.write(_backend, turn="stuck")
    assert ["lock_timeout = '500ms'" in statement for statement in _waits(sent)] == [True, True]


async def test_a_turn_that_is_free_again_is_had_at_once(database: Database, stopped: psycopg.Connection) -> None:
    """Its having been stuck is no reason to refuse."""
    _take(stopped, "stuck")
    with pytest.raises(StoreUnavailable):
        await database.write(_backend, turn="stuck")
    stopped.execute("SELECT pg_advisory_unlock_all()")
    for _ in range(2):
        assert await database.write(_backend, turn="stuck") > 0


async def test_other_locks_are_waited_for_as_long_as_ever(database: Database, stopped: psycopg.Connection) -> None:
    """Neither a turn that came nor one that did not leaves its impatience to the rest of the transaction."""
    usual = await database.write(_lock_timeout)
    assert await database.write(_lock_timeout, turn="free") == usual
    _take(stopped, "stuck")
    refused, beside = await asyncio.gather(
        database.write(_lock_timeout, turn="stuck"),
        database.write(_lock_timeout, turn="another"),
        return_exceptions=True,
    )
    assert (type(refused), beside) == (StoreUnavailable, usual)
    assert await database.write(_lock_timeout) == usual


async def test_a_turn_is_kept_until_the_end_of_the_transaction(clean_postgres_url: str) -> None:
    """Also one that was only asked for."""
    engine = sa.create_engine(clean_postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    ours, theirs = Turns(), Turns()
    with engine.connect() as one, engine.connect() as other:
        for _ in range(2):
            with one.begin():
                assert ours.take(one, ["a", "b"]) == frozenset()
                with other.begin():
                    assert theirs.take(other, ["b", "c"]) == {"b"}
            with other.begin():
                assert theirs.take(other, ["b", "c"]) == frozenset()
    engine.dispose()
