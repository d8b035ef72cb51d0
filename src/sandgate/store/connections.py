"""How to connect to each kind of database, and a thread's own connection that is made anew when it is lost."""

import os
import sqlite3
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy.exc
from sqlalchemy import Connection, Engine, make_url

from sandgate.core.errors import ConfigurationError
from sandgate.store import faults, postgres, sqlite

# Longer than every wait inside a thread (busy timeout, lock and statement timeouts), so that those speak first.
DEADLINE_S = 30.0

Location = str | Path
"""A file of SQLite, or ``postgresql://…``."""


@dataclass(frozen=True, slots=True)
class Connector:
    """Makes the connections of one database.

    ``identity`` changes when what is at the location is another database than before (None: nothing is there):
    a file that was deleted or replaced is still written to by those who hold it open.
    """

    writer: Engine
    reader: Engine
    create: Callable[[], None]
    identity: Callable[[], Hashable]


def connector_for(location: Location, *, checkpoint: bool, deadline_s: float = DEADLINE_S) -> Connector:
    """The connector for a location; raises ``ConfigurationError`` when it is neither a file nor PostgreSQL.

    With a deadline below the usual one, what is waited for inside a thread is waited for less long in proportion.
    """
    part = min(1.0, deadline_s / DEADLINE_S)
    if isinstance(location, Path):
        return _sqlite_connector(location, checkpoint=checkpoint, part=part)
    try:
        url = make_url(location)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        # The text is not shown, since it may hold a password.
        raise ConfigurationError("The database's URL is not valid; write postgresql://user@host/name.") from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigurationError(f"There is no store for {url.get_backend_name()}; write postgresql://user@host/name.")
    return Connector(
        writer=postgres.make_engine(url, for_reading=False, part=part),
        reader=postgres.make_engine(url, for_reading=True, part=part),
        create=lambda: None,
        identity=lambda: url,
    )


def _sqlite_connector(path: Path, *, checkpoint: bool, part: float) -> Connector:
    if sqlite3.sqlite_version_info < sqlite.OLDEST_VERSION:
        oldest = ".".join(map(str, sqlite.OLDEST_VERSION))
        raise ConfigurationError(f"SQLite {sqlite3.sqlite_version} is too old; use a Python with {oldest} or newer.")
    return Connector(
        writer=sqlite.make_engine(path, for_reading=False, checkpoint=checkpoint, part=part),
        reader=sqlite.make_engine(path, for_reading=True, checkpoint=False, part=part),
        create=lambda: sqlite.create_file(path),
        identity=lambda: _identity_of(path),
    )


def _identity_of(path: Path) -> Hashable:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Link:
    """A connection that belongs to one thread."""

    def __init__(self, engine: Engine, identity: Callable[[], Hashable]) -> None:
        self._engine = engine
        self._identity_now = identity
        self._identity: Hashable = None
        self._connection: Connection | None = None

    def connection(self) -> Connection:
        """The connection, made when there is none or the old one is of no use; raises ``UnreachableError``."""
        identity = self._identity_now()
        if self._connection is not None and (self._connection.invalidated or identity != self._identity):
            self.drop()
        if self._connection is None:
            if identity is None:
                raise faults.UnreachableError("its file is gone")
            self._connection, self._identity = self._connect(), identity
        return self._connection

    def drop(self) -> None:
        """Close the connection, whatever state it is in."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.close()
        except sqlalchemy.exc.DBAPIError:
            connection.invalidate()
            connection.close()

    def _connect(self) -> Connection:
        try:
            return self._engine.connect()
        except (sqlalchemy.exc.DBAPIError, sqlite3.Error) as error:
            raise faults.UnreachableError(faults.cause_of(error)) from error
