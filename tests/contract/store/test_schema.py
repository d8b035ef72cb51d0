"""The schema's versions: made, migrated, refused."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from sandgate.core.errors import ConfigurationError, StoreUnavailable
from sandgate.store import migrations, revisions
from sandgate.store.connections import Location, connector_for
from sandgate.store.identity_schema import database_identity
from sandgate.store.revisions import current_revision, head_revision, migrate
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import a_user, an_api_key

SCRIPTS = Path(str(migrations.__file__)).parent

# Everything that PostgreSQL knows about tables, as rows to compare.
POSTGRES_SCHEMA = """
    SELECT 'column', table_name, concat_ws(' ', column_name, ordinal_position, data_type, character_maximum_length,
           is_nullable, collation_name, column_default)
      FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL SELECT 'index', tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT 'constraint', conrelid::regclass::text, conname || ' ' || pg_get_constraintdef(oid)
      FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT 'trigger', tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
"""
# Not the text of tables: a column that was added later stands behind the constraints there, and means the same.
SQLITE_SCHEMA = """
    SELECT 'column', t.name, c.cid || c.name || ' ' || c.type || c."notnull" || coalesce(c.dflt_value, '-') || c.pk
      FROM sqlite_master t JOIN pragma_table_xinfo(t.name) c WHERE t.type = 'table'
    UNION ALL SELECT 'foreign key', t.name, f."table" || ' ' || f."from" || ' ' || f."to" || f.on_update || f.on_delete
      FROM sqlite_master t JOIN pragma_foreign_key_list(t.name) f WHERE t.type = 'table'
    UNION ALL SELECT type, tbl_name, coalesce(sql, name) FROM sqlite_master WHERE type <> 'table'
"""


@contextmanager
def _connected(location: Location) -> Iterator[Connection]:
    connector = connector_for(location, checkpoint=False)
    connector.create()
    with connector.writer.connect() as connection:
        yield connection


def _describe(connection: Connection) -> list[tuple[str, ...]]:
    statement = SQLITE_SCHEMA if connection.dialect.name == "sqlite" else POSTGRES_SCHEMA
    rows = connection.exec_driver_sql(statement).fetchall()
    return sorted(tuple(re.sub(r"\s+", " ", str(value)) for value in row) for row in rows)


def _forget(connection: Connection) -> None:
    """Take away all tables."""
    for table in sa.inspect(connection).get_table_names():
        cascade = "" if connection.dialect.name == "sqlite" else "CASCADE"
        connection.exec_driver_sql(f"DROP TABLE {table} {cascade}")


def _set_revision(location: Location, revision: str) -> None:
    with _connected(location) as connection, connection.begin():
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")


async def _open_and_close(location: Location, *, migrate: bool) -> None:
    store = SqlStore(location, migrate=migrate)
    await store.open()
    await store.close()


def test_migrations_and_tables_are_the_same_schema(empty_location: Location) -> None:
    """A database that was migrated from the first version is like one that was made at once."""
    with _connected(empty_location) as connection:
        revisions.ensure_schema(connection, migrate=True)
        with connection.begin():
            made = _describe(connection)
            _forget(connection)
            assert _describe(connection) == []
            revisions.run_migrations(connection)
            assert _describe(connection) == made


async def test_each_database_has_an_identity_of_its_own(empty_location: Location) -> None:
    """The same at each start, whether its tables were made at once or one version after the other; no other has it."""
    seen = set()
    for _start in range(2):
        store = SqlStore(empty_location, read_threads=1)
        await store.open()
        seen.add(await store.identity())
        await store.close()
    assert len(seen) == 1
    with _connected(empty_location) as connection, connection.begin():
        _forget(connection)
        revisions.run_migrations(connection)
        other = connection.scalar(sa.select(database_identity.c.identity))
        assert other
        assert other not in seen


def test_the_list_of_versions_is_that_of_the_migrations() -> None:
    """One row of versions, each with its file, in the order of their numbers."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    scripts = list(ScriptDirectory.from_config(config).walk_revisions())[::-1]
    assert tuple(script.revision for script in scripts) == revisions.REVISIONS
    assert [script.down_revision for script in scripts] == [None, *revisions.REVISIONS[:-1]]
    assert all(Path(script.path).name.startswith(f"v{script.revision}_") for script in scripts)


def test_the_version_can_be_asked_for(empty_location: Location) -> None:
    """None before there is one; a migration answers the newest, and again when there is nothing to do."""
    if isinstance(empty_location, Path):
        with pytest.raises(StoreUnavailable):
            current_revision(empty_location)
        assert not empty_location.exists()
    else:
        assert current_revision(empty_location) is None
    for _ in range(2):
        assert migrate(empty_location) == head_revision() == current_revision(empty_location)


def test_processes_that_migrate_at_once_wait_for_each_other(empty_location: Location) -> None:
    """Each finds the newest version in the end."""
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(migrate, [empty_location] * 6))
    assert answers == [head_revision()] * 6
    assert current_revision(empty_location) == head_revision()


async def test_an_old_schema_is_refused_when_it_may_not_be_migrated(empty_location: Location) -> None:
    """The message says what to run; nothing is changed."""
    with pytest.raises(ConfigurationError, match=r"version none.*sandgate migrate"):
        await _open_and_close(empty_location, migrate=False)
    assert current_revision(empty_location) is None
    await _open_and_close(empty_location, migrate=True)
    await _open_and_close(empty_location, migrate=False)


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_newer_schema_is_refused(empty_location: Location, allowed: bool) -> None:
    """Whether or not migrating is allowed; nothing is changed."""
    migrate(empty_location)
    _set_revision(empty_location, "9999")
    with pytest.raises(ConfigurationError, match=r"9999, which is newer.*install the newer"):
        await _open_and_close(empty_location, migrate=allowed)
    with pytest.raises(ConfigurationError, match="newer"):
        migrate(empty_location)
    assert current_revision(empty_location) == "9999"


async def test_tables_of_others_are_left_alone(empty_location: Location) -> None:
    """A database in which one of the names is taken is not touched."""
    with _connected(empty_location) as connection, connection.begin():
        connection.exec_driver_sql("CREATE TABLE users (id integer)")
    with pytest.raises(ConfigurationError, match=r"did not make \(users\)"):
        await _open_and_close(empty_location, migrate=True)
    with _connected(empty_location) as connection:
        assert sa.inspect(connection).get_table_names() == ["users"]


HEAD = revisions.REVISIONS[-1]
NEXT = f"{int(HEAD) + 1:04}"
MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{next}", "{head}"

def upgrade():
    with op.batch_alter_table("users", recreate="auto") as table:
        table.add_column(sa.Column("email", sa.Text))
        table.alter_column("role", existing_type=sa.Text, nullable=True)
    {last}
"""


@pytest.fixture
async def filled_location(empty_location: Location) -> Location:
    """A database of the newest version with a user and a key of it."""
    store = SqlStore(empty_location)
    await store.open()
    user = a_user()
    await store.users.insert(user)
    await store.credentials.insert_api_key(an_api_key(user))
    await store.close()
    return empty_location


WriteMigration = Callable[[str], object]


@pytest.fixture
def next_version(filled_location: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteMigration:
    """From here on the code knows one version more; what this is given is the last line of its migration."""
    folder = tmp_path / "100% migrations"
    shutil.copytree(SCRIPTS, folder)
    monkeypatch.setattr(revisions, "_MIGRATIONS", folder)
    monkeypatch.setattr(revisions, "REVISIONS", (*revisions.REVISIONS, NEXT))
    file = folder / "versions" / f"v{NEXT}_next.py"
    return lambda last: file.write_text(MIGRATION.format(last=last, next=NEXT, head=HEAD))


def _count(connection: Connection, table: str) -> int:
    count: int = connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()
    return count


async def test_a_migration_keeps_the_rows(filled_location: Location, next_version: WriteMigration) -> None:
    """Also those that refer to a table which SQLite can only change by replacing it."""
    next_version("pass")
    with pytest.raises(ConfigurationError, match=f"version {HEAD}, this server needs {NEXT}"):
        await _open_and_close(filled_location, migrate=False)
    await _open_and_close(filled_location, migrate=True)
    assert current_revision(filled_location) == NEXT
    with _connected(filled_location) as connection:
        assert (_count(connection, "users"), _count(connection, "api_keys")) == (1, 1)
        assert connection.exec_driver_sql("SELECT email FROM users").scalar_one() is None


async def test_a_migration_that_fails_is_undone(filled_location: Location, next_version: WriteMigration) -> None:
    """The old version stays as it was and can go on being used."""
    next_version("op.execute('DELETE FROM users'); 1 / 0")
    with _connected(filled_location) as connection:
        before = _describe(connection)
    with pytest.raises(ZeroDivisionError):
        await _open_and_close(filled_location, migrate=True)
    assert current_revision(filled_location) == HEAD
    with _connected(filled_location) as connection:
        assert _describe(connection) == before
        assert (_count(connection, "users"), _count(connection, "api_keys")) == (1, 1)


@pytest.mark.parametrize("empty_location", ["sqlite"], indirect=True)
async def test_a_migration_that_breaks_references_is_undone(
    filled_location: Location, next_version: WriteMigration
) -> None:
    """Foreign keys are not watched during a migration of SQLite, so that they are looked at before its end."""
    next_version("op.execute('DELETE FROM users')")
    with pytest.raises(ConfigurationError, match="would break 1 references"):
        await _open_and_close(filled_location, migrate=True)
    assert current_revision(filled_location) == HEAD


def test_a_usual_start_loads_only_what_it_needs(sqlite_path: Path) -> None:
    """Neither Alembic nor anything of PostgreSQL, also at the first start."""
    program = f"""
import asyncio, pathlib, sys
from sandgate.store.sql_store import SqlStore

async def main():
    store = SqlStore(pathlib.Path({str(sqlite_path)!r}))
    await store.open()
    await store.check()
    await store.close()

asyncio.run(main())
print([name for name in ("alembic", "psycopg", "sqlalchemy.dialects.postgresql") if name in sys.modules])
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.strip() == "[]"
