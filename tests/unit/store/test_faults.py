"""Exceptions of drivers become one of ours, and others stay what they are."""

import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import errors

from sandgate.core.errors import LastAdmin, StoreUnavailable
from sandgate.store import faults


def _wrapped(error: Exception, *, lost: bool = False) -> Exception:
    base = sqlite3.Error if isinstance(error, sqlite3.Error) else psycopg.Error
    made = sa.exc.DBAPIError.instance("SELECT secret", {}, error, base, connection_invalidated=lost)
    assert isinstance(made, sa.exc.DBAPIError)
    return made


def _sqlite_error(path: Path, *statements: str) -> sqlite3.Error:
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        try:
            for statement in statements:
                connection.execute(statement)
        except sqlite3.Error as error:
            return error
    raise AssertionError(statements)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (errors.DiskFull("x"), "the disk is full (SQLSTATE 53100)"),
        (errors.LockNotAvailable("x"), "another transaction holds a lock (SQLSTATE 55P03)"),
        (errors.QueryCanceled("x"), "it took too long (SQLSTATE 57014)"),
        (errors.ReadOnlySqlTransaction("x"), "it may only be read (SQLSTATE 25006)"),
        (errors.InsufficientPrivilege("x"), "the role lacks a privilege (SQLSTATE 42501)"),
        (errors.UndefinedTable("x"), "a table is missing (SQLSTATE 42P01)"),
        (errors.ProgramLimitExceeded("x"), "PostgreSQL refused it (SQLSTATE 54000)"),
        (psycopg.OperationalError("no route to 10.0.0.1"), "it does not answer"),
    ],
)
def test_trouble_of_postgresql_is_named(error: psycopg.Error, cause: str) -> None:
    """By its code, without what the server said, which may hold names of the inside."""
    wrapped = _wrapped(error)
    translated = faults.translate(wrapped)
    assert isinstance(translated, StoreUnavailable)
    assert cause in translated.message
    assert "10.0.0.1" not in translated.message
    assert "secret" not in translated.message
    assert translated.__cause__ is wrapped


@pytest.mark.parametrize(
    ("content", "statements", "cause"),
    [
        ("no database", ["SELECT * FROM t"], "its file is not a database; restore a backup (SQLITE_NOTADB)"),
        ("", ["PRAGMA max_page_count = 1", "CREATE TABLE t (a)"], "the disk is full (SQLITE_FULL)"),
        ("", ["PRAGMA query_only = ON", "CREATE TABLE t (a)"], "it may not be written (SQLITE_READONLY)"),
        ("", ["SELECT * FROM t"], "SQLite refused it (SQLITE_ERROR)"),
    ],
)
def test_trouble_of_sqlite_is_named(tmp_path: Path, content: str, statements: list[str], cause: str) -> None:
    """By its code, as the driver raises it and as SQLAlchemy does."""
    path = tmp_path / "file"
    path.write_text(content * 100)
    error = _sqlite_error(path, *statements)
    for raised in (error, _wrapped(error)):
        translated = faults.translate(raised)
        assert isinstance(translated, StoreUnavailable)
        assert cause in translated.message
        assert translated.__cause__ is raised


@pytest.mark.parametrize(
    "error",
    [
        LastAdmin("x"),
        ZeroDivisionError(),
        _wrapped(errors.UniqueViolation("x")),
        _wrapped(errors.SyntaxError("x")),
        _wrapped(errors.NumericValueOutOfRange("x")),
        _wrapped(sqlite3.IntegrityError("x")),
        _wrapped(sqlite3.ProgrammingError("x")),
    ],
)
def test_refusals_and_bugs_stay_what_they_are(error: Exception) -> None:
    """They are no trouble of the database."""
    assert faults.translate(error) is error


def test_a_lost_connection_is_trouble_whatever_it_says() -> None:
    """Also an error without a code."""
    lost = _wrapped(psycopg.DatabaseError("x"), lost=True)
    assert faults.is_lost(lost)
    assert not faults.is_lost(_wrapped(psycopg.OperationalError("x")))
    assert not faults.is_lost(ZeroDivisionError())
    assert "the connection was lost" in str(faults.translate(lost))


def test_an_unknown_outcome_is_told_apart() -> None:
    """Only there may doing it again do it twice."""
    unknown = faults.translate(faults.CommitUnknownError())
    unreachable = faults.translate(faults.UnreachableError("its file is gone"))
    assert isinstance(unknown, StoreUnavailable)
    assert isinstance(unreachable, StoreUnavailable)
    assert unknown.details == {"outcome": "unknown"}
    assert unreachable.details == {}
    assert "its file is gone" in unreachable.message
