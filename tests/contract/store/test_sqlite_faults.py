"""What goes wrong around a file of SQLite: locks, a full disk, a file that is gone, permissions, other processes."""

import asyncio
import errno
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sandgate.core.errors import ConfigurationError, StoreUnavailable
from sandgate.store import sqlite
from sandgate.store.database import Database
from sandgate.store.revisions import migrate
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, a_running_execution, a_user, ended


@pytest.fixture
async def store(sqlite_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqlStore]:
    """An open store that does not wait long for locks."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.05)
    opened = SqlStore(sqlite_path)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def other_process(sqlite_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that is not the store's."""
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        yield connection


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def test_only_the_owner_can_read_the_files(store: SqlStore, sqlite_path: Path) -> None:
    """The database, its log and its index, in a folder of the same kind."""
    await store.check()
    assert stat.S_IMODE(sqlite_path.parent.stat().st_mode) == 0o700
    assert _modes(sqlite_path.parent) == {"sandgate.db": 0o600, "sandgate.db-wal": 0o600, "sandgate.db-shm": 0o600}


def test_a_file_that_others_can_read_is_tightened(sqlite_path: Path) -> None:
    """A folder that exists keeps its mode: it may hold more than the database."""
    folder = sqlite_path.parent
    folder.mkdir(mode=0o755)
    sqlite_path.touch(0o644)
    migrate(sqlite_path)
    assert _modes(folder) == {"sandgate.db": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


async def test_every_commit_is_flushed(sqlite_path: Path) -> None:
    """The settings that durability rests on hold for the connection that writes."""
    database = Database(sqlite_path)
    await database.open()
    found = [await _pragma(database, name) for name in ("journal_mode", "synchronous", "foreign_keys")]
    await database.close()
    assert found == ["wal", 2, 1]


async def _pragma(database: Database, name: str) -> object:
    return await database.write(lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar())


@pytest.mark.parametrize(("checkpoint", "writer_pages"), [(True, 1000), (False, 0)])
async def test_only_the_writer_of_the_server_moves_the_log(
    sqlite_path: Path, checkpoint: bool, writer_pages: int
) -> None:
    """Readers and other processes never do."""
    database = Database(sqlite_path, checkpoint=checkpoint)
    await database.open()
    assert await _pragma(database, "wal_autocheckpoint") == writer_pages
    pragma = "PRAGMA wal_autocheckpoint"
    assert await database.read(lambda connection: connection.exec_driver_sql(pragma).scalar()) == 0
    await database.close()


async def test_a_lock_that_is_not_given_back_is_named(store: SqlStore, other_process: sqlite3.Connection) -> None:
    """All that waited are told at once; reads go on; writes go on when the lock is gone."""
    other_process.execute("BEGIN IMMEDIATE")
    writes = [store.credentials.revoke_token(str(number), NOW) for number in range(20)]
    results = await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), timeout=30)
    assert {type(result) for result in results} == {StoreUnavailable}
    assert "write lock (SQLITE_BUSY)" in str(results[0])
    with pytest.raises(StoreUnavailable):
        await store.check()
    assert not await store.credentials.is_revoked("0")
    other_process.execute("ROLLBACK")
    await store.check()
    await store.credentials.revoke_token("0", NOW)


async def test_who_waits_less_for_the_database_waits_less_for_its_locks(sqlite_path: Path) -> None:
    """What is waited for inside speaks first, and says why."""
    store = SqlStore(sqlite_path, deadline_s=6.0)
    await store.open()
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="write lock"):
            await store.check()
    await store.close()


async def test_another_process_may_write_beside_the_server(sqlite_path: Path) -> None:
    """Each sees at once what the other has written."""
    store = SqlStore(sqlite_path)
    await store.open()
    beside = SqlStore(sqlite_path, checkpoint=False)
    await beside.open()
    writes = [each.credentials.revoke_token(f"{number}", NOW) for number, each in enumerate([store, beside] * 20)]
    await asyncio.gather(*writes)
    for each in (store, beside):
        assert all([await each.credentials.is_revoked(str(number)) for number in range(40)])
    await beside.close()
    await store.check()
    await store.close()


async def test_a_full_disk_stops_what_does_not_fit(sqlite_path: Path) -> None:
    """A write that finds no room is refused alone; smaller ones of the same group are kept; reads go on."""
    store = SqlStore(sqlite_path)
    await store.open()
    database = Database(sqlite_path, checkpoint=False)
    await database.open()
    pages = await database.read(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar_one())
    await _pragma(store._database, f"max_page_count = {pages + 20}")
    small = [ended(a_running_execution()) for _ in range(4)]
    large = ended(a_running_execution(), stdout="x" * 400_000)
    results = await asyncio.gather(
        *(store.executions.finish(execution) for execution in [*small[:2], large, *small[2:]]), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), type(None), StoreUnavailable, type(None), type(None)]
    assert "the disk is full (SQLITE_FULL)" in str(results[2])
    for execution in small:
        assert await store.executions.find(execution.execution_id) == execution
    assert await store.executions.find(large.execution_id) is None
    await database.close()
    await store.close()


async def test_a_file_that_is_gone_is_noticed_and_found_again(store: SqlStore, sqlite_path: Path) -> None:
    """What is written into a deleted file would be lost, so that it is refused; nothing is made in its place."""
    user = a_user()
    await store.users.insert(user)
    away = sqlite_path.parent.with_name("away")
    sqlite_path.parent.rename(away)
    for broken in (store.check(), store.users.insert(a_user()), store.users.find(user.user_id)):
        with pytest.raises(StoreUnavailable, match="gone"):
            await broken
    assert not sqlite_path.parent.exists()
    away.rename(sqlite_path.parent)
    await store.check()
    assert await store.users.find(user.user_id) == user


async def test_a_file_that_was_replaced_is_opened_anew(store: SqlStore, sqlite_path: Path, tmp_path: Path) -> None:
    """As after a backup was put in the place of the database of a running server."""
    first, second = a_user(), a_user()
    await store.users.insert(first)
    await store.users.find(first.user_id)
    backup = tmp_path / "backup.db"
    with closing(sqlite3.connect(sqlite_path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    await store.users.insert(second)
    for name in ("sandgate.db-wal", "sandgate.db-shm"):
        (sqlite_path.parent / name).unlink()
    backup.rename(sqlite_path)
    assert await store.users.find(second.user_id) is None
    assert await store.users.find(first.user_id) == first
    await store.users.insert(second)
    assert await store.users.find(second.user_id) == second


def _empty(path: Path) -> None:
    for each in list(path.parent.iterdir()):
        each.unlink()
    path.touch()


async def test_a_file_without_tables_is_a_fault(store: SqlStore, sqlite_path: Path) -> None:
    """Not an answer that there is nothing."""
    _empty(sqlite_path)
    with pytest.raises(StoreUnavailable):
        await store.users.count()


@pytest.mark.parametrize("content", [b"not a database, but long enough to be taken for one" * 100, b"short"])
def test_a_file_that_is_no_database_is_refused(sqlite_path: Path, content: bytes) -> None:
    """And left as it was."""
    sqlite_path.parent.mkdir()
    sqlite_path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match="not a database"):
        asyncio.run(SqlStore(sqlite_path).open())
    assert sqlite_path.read_bytes() == content


async def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    """With a message that names it."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "x.db", Path("/proc/nothing/x.db")):
        with pytest.raises(ConfigurationError, match="cannot be made"):
            await SqlStore(path).open()


async def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    """Those that mean something in a URL too."""
    path = tmp_path / "a b?c#d%e&f=\u00e9" / "x y?mode=ro.db"
    store = SqlStore(path)
    await store.open()
    await store.check()
    await store.close()
    assert os.listdir(path.parent) == [path.name]


async def test_an_old_sqlite_is_refused(sqlite_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the version that is needed."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(ConfigurationError, match=r"3\.35\.0"):
        SqlStore(sqlite_path)


async def test_nothing_is_left_after_closing(sqlite_path: Path) -> None:
    """Neither threads nor the log, whose content is in the database."""
    store = SqlStore(sqlite_path)
    await store.open()
    await asyncio.gather(*(store.users.find(a_user().user_id) for _ in range(8)))
    await store.check()
    await store.close()
    assert os.listdir(sqlite_path.parent) == ["sandgate.db"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sandgate-store")]


async def test_a_failed_opening_leaves_nothing(sqlite_path: Path) -> None:
    """No threads, and what is asked afterwards is refused."""
    store = SqlStore(sqlite_path, migrate=False)
    with pytest.raises(ConfigurationError):
        await store.open()
    with pytest.raises(StoreUnavailable):
        await store.check()
    await store.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sandgate-store")]


def _length_of_log(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


def _copy_as_after_a_crash(path: Path) -> Path:
    """The database and its log without the log's index, which is made anew."""
    copy = path.with_name("copy.db")
    for ending in ("", "-wal"):
        Path(f"{copy}{ending}").write_bytes(Path(f"{path}{ending}").read_bytes())
    return copy


async def test_the_log_has_its_length_from_the_start(store: SqlStore, sqlite_path: Path) -> None:
    """So that commits need not make it longer; what is committed is found by others, and again after a restart."""
    length = _length_of_log(sqlite_path)
    assert length == 8 * 1024**2
    user = a_user()
    await store.users.insert(user)
    assert _length_of_log(sqlite_path) == length
    with closing(sqlite3.connect(_copy_as_after_a_crash(sqlite_path))) as later:
        assert later.execute("SELECT user_id FROM users").fetchall() == [(user.user_id,)]
        assert later.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_full_disk_leaves_the_log_short(sqlite_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The length is for speed only."""

    def refuse(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    opened = SqlStore(sqlite_path)
    await opened.open()
    await opened.check()
    assert _length_of_log(sqlite_path) < 8 * 1024**2
    await opened.close()
