"""Connections to PostgreSQL with deadlines of their own, so that a thread is never held for good."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import URL, Engine
from sqlalchemy.pool import NullPool

from sandgate.core.errors import ConfigurationError
from sandgate.store import faults

# A lost server or network is noticed within about 15 s, a statement gives up after as long.
# Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
_CONNECT_ARGUMENTS = {
    "application_name": "sandgate",
    "client_encoding": "utf8",
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

_LOCK_MS, _STATEMENT_MS = 5_000, 15_000
_SESSION = (
    f"SET lock_timeout = {_LOCK_MS}",
    f"SET statement_timeout = {_STATEMENT_MS}",
    "SET idle_in_transaction_session_timeout = '30s'",
    # Off would lose acknowledged commits when the server crashes; what is stronger than on is kept.
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
)


def make_engine(url: URL, *, for_reading: bool, part: float = 1.0) -> Engine:
    """Connections to the database. Those for reading run each statement by itself and refuse to write.

    What the URL says in its query overrides the arguments of this module. ``part`` of the usual time is waited for
    locks and statements.
    """
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=_connect_arguments(url),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT" if for_reading else "READ COMMITTED",
    )
    session = _SESSION if part == 1.0 else (*_SESSION, *_shorter(part))
    if for_reading:
        session = (*session, "SET default_transaction_read_only = on")
    sa.event.listen(engine, "connect", lambda connection, _record: _set_up(connection, session))
    return engine


async def listen(url: URL, channel: str, on_open: Callable[[], None], on_payload: Callable[[str], None]) -> None:
    """Hear what is notified on a channel, on a connection of its own, until that is lost: ``UnreachableError``."""
    # Not at the top: a server on SQLite needs no driver of PostgreSQL.
    import psycopg

    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        connection = await psycopg.AsyncConnection.connect(address, autocommit=True, **_connect_arguments(url))
        try:
            await connection.execute(f"LISTEN {channel}")
            on_open()
            async for notification in connection.notifies():
                on_payload(notification.payload)
        finally:
            await connection.close()
    except (psycopg.Error, OSError) as error:
        raise faults.UnreachableError(faults.cause_of(error)) from error


def _shorter(part: float) -> tuple[str, ...]:
    return (f"SET lock_timeout = {int(_LOCK_MS * part)}", f"SET statement_timeout = {int(_STATEMENT_MS * part)}")


def _connect_arguments(url: URL) -> dict[str, Any]:
    return {name: value for name, value in _CONNECT_ARGUMENTS.items() if name not in url.query}


def _set_up(connection: Any, session: tuple[str, ...]) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(f"The database's encoding is {encoding}; make one with ENCODING 'UTF8'.")
    before, connection.autocommit = connection.autocommit, True
    connection.execute("; ".join(session))
    connection.autocommit = before
