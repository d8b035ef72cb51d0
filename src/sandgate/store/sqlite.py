"""Connections to SQLite: a write-ahead log that is flushed at every commit, and one connection that writes."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.pool import NullPool

from sandgate.core.errors import ConfigurationError
from sandgate.store.durable import sync_folder

# The first with RETURNING. Source: https://www.sqlite.org/lang_returning.html
OLDEST_VERSION = (3, 35, 0)

# How long a statement waits for another process that holds the write lock.
BUSY_TIMEOUT_S = 5.0

_MIB = 1024 * 1024

# Twice what the log holds when it is moved into the database, which leaves room for commits that come meanwhile.
_LOG_BYTES = 8 * _MIB
_ZEROS = bytes(_MIB)


def create_file(path: Path) -> None:
    """Make the database's file and folder, readable by their owner only, unless they exist; tighten the file.

    Raises ``ConfigurationError`` when that is not allowed.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            # SQLite gives the log and the index beside the file the same mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            sync_folder(path.parent)
        elif path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise ConfigurationError(f"The database {path} cannot be made or kept private: {error.strerror}.") from error


def make_engine(path: Path, *, for_reading: bool, checkpoint: bool, part: float = 1.0) -> Engine:
    """Connections to an existing file. Those for reading run each statement by itself and refuse to write.

    ``part`` of the usual time is waited for locks.
    """
    busy_s = BUSY_TIMEOUT_S * part
    engine = sa.create_engine(
        "sqlite+pysqlite://",
        creator=lambda: _connect(path, busy_s, for_reading=for_reading, checkpoint=checkpoint),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT" if for_reading else None,
    )
    if not for_reading:
        sa.event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    """Take the write lock first: a transaction that read before it wrote could be refused half way."""
    driver_connection: Any = connection.connection.driver_connection
    driver_connection.execute("BEGIN IMMEDIATE")


def _connect(path: Path, busy_s: float, *, for_reading: bool, checkpoint: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=busy_s,
        isolation_level=None,
        cached_statements=256,
    )
    try:
        _set_up(connection.execute, for_reading=for_reading, checkpoint=checkpoint)
        if checkpoint:
            _lengthen_log(connection, path)
    except (sqlite3.Error, ConfigurationError):
        connection.close()
        raise
    return connection


def _set_up(execute: Callable[[str], sqlite3.Cursor], *, for_reading: bool, checkpoint: bool) -> None:
    # Only one connection in all processes may move the log into the database: SQLite before 3.51.3 can lose a
    # commit when two do. It does so right after a commit of its own, so that no other writer can empty the log
    # under it. Source: https://www.sqlite.org/wal.html#walresetbug
    execute(f"PRAGMA wal_autocheckpoint = {1000 if checkpoint else 0}")
    execute("PRAGMA foreign_keys = ON")
    if for_reading:
        execute("PRAGMA query_only = ON")
        return
    mode = execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise ConfigurationError(
            f"SQLite cannot keep a write-ahead log here (journal mode {mode}): put the state on a local disk."
        )
    # NORMAL may lose acknowledged commits when the power fails.
    execute("PRAGMA synchronous = FULL")
    execute(f"PRAGMA journal_size_limit = {64 * _MIB}")
    execute(f"PRAGMA cache_size = -{8 * 1024}")


def _lengthen_log(connection: sqlite3.Connection, path: Path) -> None:
    """Give the log its usual length at once, because a commit that makes the file longer takes twice as long.

    Zeros behind the last commit are nothing to SQLite. Source: https://www.sqlite.org/fileformat2.html#walformat
    """
    with suppress(OSError, sqlite3.OperationalError):
        # Nobody shortens it or takes it away while somebody holds the write lock.
        connection.execute("BEGIN IMMEDIATE")
        try:
            log = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
            try:
                _fill(log, _LOG_BYTES)
            finally:
                os.close(log)
        finally:
            connection.execute("ROLLBACK")


def _fill(file: int, size: int) -> None:
    """Write zeros until the file has this size."""
    length = os.fstat(file).st_size
    while length < size:
        length += os.pwrite(file, _ZEROS[: size - length], length)
    os.fsync(file)
