"""The one place that knows the exceptions of SQLAlchemy and of the drivers."""

import sqlite3

import sqlalchemy.exc
from sqlalchemy.exc import DBAPIError

from sandgate.core.errors import StoreUnavailable

# Source: https://www.sqlite.org/rescode.html (extended codes start with the name of their primary code).
_SQLITE_CAUSES = {
    "SQLITE_BUSY": "another process holds its write lock",
    "SQLITE_LOCKED": "another connection holds a table of it",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_IOERR": "the disk failed",
    "SQLITE_READONLY": "it may not be written",
    "SQLITE_CANTOPEN": "its file cannot be opened",
    "SQLITE_PERM": "its file may not be opened",
    "SQLITE_CORRUPT": "its file is damaged; restore a backup",
    "SQLITE_NOTADB": "its file is not a database; restore a backup",
    "SQLITE_NOMEM": "there is no memory left",
}

# Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
_LOCK_HELD = "55P03"
_POSTGRES_CAUSES = {
    "25006": "it may only be read",
    "40001": "another transaction was in the way",
    "40P01": "another transaction was in the way",
    "42501": "the role lacks a privilege",
    "42P01": "a table is missing",
    "53100": "the disk is full",
    "53200": "there is no memory left",
    "53300": "it has no connection left",
    _LOCK_HELD: "another transaction holds a lock",
    "57014": "it took too long",
    "57P01": "it is stopping",
    "57P02": "it crashed",
    "57P03": "it is starting",
}

_FAULTS = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.InternalError,
    sqlite3.OperationalError,
)


class UnreachableError(Exception):
    """No connection could be made; nothing was sent. Stays inside the store."""


class TurnTakenError(Exception):
    """Another transaction has the turn of a job; nothing was done. Stays inside the store."""


class CommitUnknownError(Exception):
    """The connection was lost while a commit was under way. Stays inside the store."""


def is_lost(error: Exception) -> bool:
    """Whether the connection is gone, rather than one statement refused."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def is_lock_held(error: DBAPIError) -> bool:
    """Whether a lock was waited for in vain."""
    return getattr(error.orig, "sqlstate", None) == _LOCK_HELD


def translate(error: Exception) -> Exception:
    """A new ``StoreUnavailable`` caused by trouble of the database; every other exception as it is."""
    unavailable = _unavailable(error)
    if unavailable is None:
        return error
    unavailable.__cause__ = error
    return unavailable


def _unavailable(error: Exception) -> StoreUnavailable | None:
    if isinstance(error, UnreachableError):
        return StoreUnavailable(f"The database cannot be used: {error}. Nothing was done; try again later.")
    if isinstance(error, TurnTakenError):
        return StoreUnavailable(
            "The database did not do this: another server does not come to an end with the like. Try again later."
        )
    if isinstance(error, CommitUnknownError):
        return StoreUnavailable(
            "The connection to the database was lost while the change was being committed: it may or may not have "
            "been done. Look before doing it again.",
            {"outcome": "unknown"},
        )
    if _is_fault(error):
        return StoreUnavailable(f"The database did not do this: {cause_of(error)}. Try again later.")
    return None


def cause_of(error: Exception) -> str:
    """Why, for a person: the database's code and what it means."""
    original = getattr(error, "orig", None) or error
    if isinstance(original, sqlite3.Error):
        name = getattr(original, "sqlite_errorname", "")
        primary = "_".join(name.split("_")[:2])
        return f"{_SQLITE_CAUSES.get(primary, 'SQLite refused it')} ({name or original})"
    state = getattr(original, "sqlstate", None)
    if state is None:
        return "the connection was lost" if is_lost(error) else "it does not answer"
    return f"{_POSTGRES_CAUSES.get(state, 'PostgreSQL refused it')} (SQLSTATE {state})"


def _is_fault(error: Exception) -> bool:
    if isinstance(error, _FAULTS) or is_lost(error):
        return True
    original = getattr(error, "orig", error)
    # A damaged file is the base class itself; its subclasses that are no faults are bugs of the caller.
    return type(original) is sqlite3.DatabaseError or getattr(original, "sqlstate", None) in _POSTGRES_CAUSES
