"""What goes wrong around a PostgreSQL: locks, lost connections, restarts, commits that nobody knows the end of."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from sandgate.core.audit import AuditChain, by_service
from sandgate.core.errors import ConfigurationError, StoreUnavailable
from sandgate.core.execution import Execution
from sandgate.store import postgres
from sandgate.store.revisions import migrate
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, a_running_execution, a_user, ended
from tests.postgres import PostgresServer

pytestmark = pytest.mark.needs_postgresql


@pytest.fixture
async def store(clean_postgres_url: str) -> AsyncIterator[SqlStore]:
    """An open store."""
    opened = SqlStore(clean_postgres_url, read_threads=1)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that may be killed, and that flushes every commit."""
    server = PostgresServer(durable=True)
    try:
        server.start()
        migrate(server.create_database("crash"))
        yield server
    finally:
        server.remove()


def _end_connections(server: PostgresServer) -> None:
    server.execute(
        sql.SQL(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'sandgate' AND datname = 'contract'"
        )
    )


async def test_a_connection_lost_while_idle_is_not_noticed(store: SqlStore, postgres_server: PostgresServer) -> None:
    """Reads and writes of the next moment are served by a new one."""
    user = a_user()
    await store.users.insert(user)
    assert await store.users.find(user.user_id) == user
    _end_connections(postgres_server)
    other = a_user()
    await store.users.insert(other)
    assert await store.users.find(user.user_id) == user
    _end_connections(postgres_server)
    await asyncio.gather(*(store.users.insert(a_user()) for _ in range(5)))
    assert await store.users.count() == 7


async def test_a_lock_that_is_not_given_back_is_named(clean_postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write that needs it is refused after a while, its neighbours are kept."""
    monkeypatch.setattr(postgres, "_SESSION", ("SET lock_timeout = '50ms'",))
    store = SqlStore(clean_postgres_url)
    await store.open()
    user = a_user()
    await store.users.insert(user)
    with psycopg.connect(clean_postgres_url) as other:
        other.execute("SELECT 1 FROM users FOR UPDATE")
        results = await asyncio.gather(
            store.credentials.revoke_token("a", NOW),
            store.users.update(user.user_id, disabled=True),
            store.credentials.revoke_token("b", NOW),
            return_exceptions=True,
        )
    assert [type(result) for result in results] == [type(None), StoreUnavailable, type(None)]
    assert "holds a lock (SQLSTATE 55P03)" in str(results[1])
    assert await store.credentials.is_revoked("b")
    await store.close()


async def test_the_end_of_the_audit_log_is_not_waited_for_as_long(
    clean_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that was stopped while it has that lock does not keep others from writing what else there is."""
    monkeypatch.setattr(postgres, "_SESSION", ("SET lock_timeout = '25s'",))
    store, chain = SqlStore(clean_postgres_url), AuditChain(b"k" * 32)
    await store.open()
    entries = [by_service("one", NOW, None, {}), by_service("two", NOW, None, {})]
    await store.audit.append(entries[:1], chain)
    with psycopg.connect(clean_postgres_url) as other:
        other.execute("SELECT 1 FROM audit_head FOR UPDATE")
        began = time.monotonic()
        results = await asyncio.gather(
            store.audit.append(entries[1:], chain),
            *(store.credentials.revoke_token(name, NOW) for name in "ab"),
            return_exceptions=True,
        )
        assert time.monotonic() - began < 20
        # Who has found it taken does not wait for it again, so that others wait for nothing.
        waits = []
        for name in "cdefg":
            began = time.monotonic()
            again = asyncio.ensure_future(store.audit.append(entries[1:], chain))
            await store.credentials.revoke_token(name, NOW)
            waits.append(time.monotonic() - began)
            with pytest.raises(StoreUnavailable):
                await again
        assert min(waits) < 0.45
    assert [type(result) for result in results] == [StoreUnavailable, type(None), type(None)]
    assert await store.audit.append(entries[1:], chain) == 2
    await store.close()


# Ends the connection in the middle of the first commit that it is part of. A sequence is not rolled back.
SABOTAGE = """
    CREATE SEQUENCE commits;
    CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('commits') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER sabotage AFTER INSERT ON {} DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION sabotage();
"""


@pytest.fixture
def sabotaged_url(empty_postgres_url: str) -> str:
    """A database whose connection is lost while the first execution or user is committed."""
    migrate(empty_postgres_url)
    with psycopg.connect(empty_postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL(SABOTAGE).format(sql.Identifier("executions")))
        connection.execute(
            "CREATE CONSTRAINT TRIGGER sabotage AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION sabotage()"
        )
    return empty_postgres_url


async def test_a_commit_of_unknown_outcome_is_not_repeated(sabotaged_url: str) -> None:
    """Its caller is told that nobody knows; the next write is served."""
    store = SqlStore(sabotaged_url)
    await store.open()
    user = a_user()
    with pytest.raises(StoreUnavailable, match="may or may not") as raised:
        await store.users.insert(user)
    assert raised.value.details == {"outcome": "unknown"}
    assert await store.users.find(user.user_id) is None
    await store.users.insert(user)
    assert await store.users.find(user.user_id) == user
    await store.close()


async def test_the_end_of_an_execution_is_written_again_after_a_commit_of_unknown_outcome(sabotaged_url: str) -> None:
    """It comes to the same however often it is done."""
    store = SqlStore(sabotaged_url)
    await store.open()
    execution = ended(a_running_execution())
    await store.executions.finish(execution)
    assert await store.executions.find(execution.execution_id) == execution
    await store.close()


async def test_a_server_that_is_down_is_said_so_at_once(own_server: PostgresServer) -> None:
    """And is used again when it is back, without a new start of the service."""
    store = SqlStore(own_server.url("crash"))
    await store.open()
    await store.check()
    own_server.stop()
    try:
        for broken in (store.check(), store.users.insert(a_user()), store.users.count()):
            with pytest.raises(StoreUnavailable, match="cannot be used"):
                await asyncio.wait_for(broken, timeout=30)
        with pytest.raises(StoreUnavailable):
            await SqlStore(own_server.url("crash")).open()
    finally:
        own_server.start()
    await store.check()
    await store.close()


async def test_what_was_acknowledged_survives_a_crash_of_the_server(own_server: PostgresServer) -> None:
    """While executions end one after another the server crashes and comes back; the store goes on by itself."""
    store = SqlStore(own_server.url("crash"))
    await store.open()
    acknowledged: list[Execution] = []
    news: asyncio.Queue[None] = asyncio.Queue()
    stop = asyncio.Event()

    async def finish_executions() -> None:
        while not stop.is_set():
            execution = ended(a_running_execution())
            try:
                await store.executions.finish(execution)
                acknowledged.append(execution)
                news.put_nowait(None)
            except StoreUnavailable:
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(finish_executions())
        for _ in range(2):
            await _take(news, 40)
            await asyncio.to_thread(own_server.kill)
            await _take(news, news.qsize())
            await asyncio.to_thread(own_server.start)
        await _take(news, 40)
        stop.set()
    for execution in acknowledged:
        assert await store.executions.find(execution.execution_id) == execution
    await store.close()


async def _take(news: asyncio.Queue[None], count: int) -> None:
    async with asyncio.timeout(30):
        for _ in range(count):
            await news.get()


@pytest.mark.parametrize("url", ["postgresql://host:secret/name", "nonsense", "mysql://host/name", ""])
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    """Without showing it, since it may hold a password."""
    with pytest.raises(ConfigurationError, match=r"postgresql://user@host/name") as raised:
        SqlStore(url)
    assert not url or url not in str(raised.value)


async def test_a_database_of_another_encoding_is_refused(postgres_server: PostgresServer) -> None:
    """Names could not be kept in it."""
    postgres_server.execute(sql.SQL("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0"))
    try:
        with pytest.raises(ConfigurationError, match="LATIN1"):
            await SqlStore(postgres_server.url("latin")).open()
    finally:
        postgres_server.drop_database("latin")


async def test_commits_are_flushed_whatever_the_server_is_set_to(empty_postgres_url: str) -> None:
    """A server that acknowledges before it has written is overruled for the connections of the store."""
    with psycopg.connect(empty_postgres_url, autocommit=True) as connection:
        connection.execute("ALTER DATABASE empty SET synchronous_commit = off")
    store = SqlStore(empty_postgres_url)
    await store.open()
    shown = await store._database.write(
        lambda connection: connection.exec_driver_sql("SHOW synchronous_commit").scalar()
    )
    assert shown == "on"
    await store.close()


async def test_who_waits_less_for_the_database_waits_less_for_its_locks(empty_postgres_url: str) -> None:
    """And for statements, in proportion."""
    store = SqlStore(empty_postgres_url, deadline_s=3.0)
    await store.open()
    asked = [sa.text(f"SHOW {name}") for name in ("lock_timeout", "statement_timeout")]
    found = await store._database.write(lambda connection: [connection.execute(one).scalar_one() for one in asked])
    await store.close()
    assert found == ["500ms", "1500ms"]
