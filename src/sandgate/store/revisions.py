"""Which version the schema of a database has, and how it is brought to the newest.

Versions are numbers in a row. A start on a database that is up to date costs one query; Alembic is imported only
when there is something to migrate, and a database without tables gets all of them at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from sandgate.core.errors import ConfigurationError
from sandgate.store import faults
from sandgate.store.connections import Location, connector_for
from sandgate.store.identity_schema import database_identity, make_identity, metadata

# Every version that this code knows, oldest first; a test compares them with the files under ``migrations``.
REVISIONS = tuple(f"{number:04}" for number in range(1, 22))

_MIGRATIONS = Path(__file__).parent / "migrations"

# One process migrates; another that starts at the same time waits for it.
_LOCK_WAIT_S = 60
_POSTGRES_LOCK_ID = 0x73616E6467617465

# As Alembic makes it.
_version = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def head_revision() -> str:
    """The schema's version that this code works with."""
    return REVISIONS[-1]


def current_revision(location: Location) -> str | None:
    """The version that the database at the location has; None when it has no tables yet.

    Raises ``StoreUnavailable``, also when there is no file.
    """
    with _connected(connector_for(location, checkpoint=False).reader) as connection:
        return _read_revision(connection)


def migrate(location: Location) -> str:
    """Bring the database at the location to the newest version, and answer it; makes a file that does not exist.

    May run beside a server. Raises ``StoreUnavailable``, ``ConfigurationError``.
    """
    connector = connector_for(location, checkpoint=False)
    connector.create()
    with _connected(connector.writer) as connection:
        ensure_schema(connection, migrate=True)
    return head_revision()


def ensure_schema(connection: Connection, *, migrate: bool) -> None:
    """See that the database has the newest version, or, if allowed, bring it there.

    Raises ``ConfigurationError`` that says what to do when the version is older and ``migrate`` is False, and
    when it is not one of this code.
    """
    with _exclusively(connection):
        revision = _read_revision(connection)
        if revision == head_revision():
            return
        if revision is not None and revision not in REVISIONS:
            raise ConfigurationError(
                f"The database's schema has version {revision}, which is newer than this server knows "
                f"({head_revision()}): install the newer sandgate again, or restore the backup made before it."
            )
        if not migrate:
            raise ConfigurationError(
                f"The database's schema has version {revision or 'none'}, this server needs {head_revision()}: "
                "run `sandgate migrate`, or start with SANDGATE_DATABASE_MIGRATE=true."
            )
        if revision is None:
            _create(connection)
        else:
            run_migrations(connection)


def _read_revision(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, _version.name):
        return None
    revision: str | None = connection.scalar(sa.select(_version.c.version_num))
    return revision


def _create(connection: Connection) -> None:
    present = set(sa.inspect(connection).get_table_names()) & set(metadata.tables)
    if present:
        raise ConfigurationError(
            f"The database holds tables that sandgate did not make ({', '.join(sorted(present))}): give it a "
            "database of its own."
        )
    metadata.create_all(connection, checkfirst=False)
    _version.create(connection, checkfirst=False)
    connection.execute(sa.insert(_version).values(version_num=head_revision()))
    connection.execute(sa.insert(database_identity).values(identity=make_identity()))


def run_migrations(connection: Connection, target: str = "head") -> None:
    """Run Alembic's upgrade inside the transaction that the connection is in."""
    # Not at the top: it takes longer to import than everything else of the store, and is rarely needed.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, target)


@contextmanager
def _exclusively(connection: Connection) -> Iterator[None]:
    """A transaction that no other process can have at the same time, without the deadlines of the everyday."""
    if connection.dialect.name == "sqlite":
        with _patient_sqlite(connection), connection.begin():
            yield
            _check_foreign_keys(connection)
        return
    with connection.begin():
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_WAIT_S}s'")
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_POSTGRES_LOCK_ID)))
        yield


@contextmanager
def _patient_sqlite(connection: Connection) -> Iterator[None]:
    """Foreign keys are off, since a migration may replace a table, which would delete the rows that refer to it."""
    before = _pragma(connection, "busy_timeout")
    _pragma(connection, f"busy_timeout = {_LOCK_WAIT_S * 1000}")
    _pragma(connection, "foreign_keys = OFF")
    try:
        yield
    finally:
        _pragma(connection, f"busy_timeout = {before}")
        _pragma(connection, "foreign_keys = ON")


def _check_foreign_keys(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if broken:
        raise ConfigurationError(f"The migration was undone: it would break {len(broken)} references between rows.")


def _pragma(connection: Connection, text: str) -> Any:
    """Run a PRAGMA outside of transactions, where those of above have an effect."""
    driver_connection: Any = connection.connection.driver_connection
    row = driver_connection.execute(f"PRAGMA {text}").fetchone()
    return row and row[0]


@contextmanager
def _connected(engine: Engine) -> Iterator[Connection]:
    try:
        with engine.connect() as connection:
            yield connection
    except sa.exc.DBAPIError as error:
        raise faults.translate(error)  # noqa: B904 - it carries its cause
