"""What commands need of the settings and the state folder."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandgate.cli.exits import InvalidSettings
from sandgate.core.errors import ConfigurationError

if TYPE_CHECKING:
    from sandgate.config.settings import Settings
    from sandgate.store.sql_store import SqlStore

StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="Folder of the server's database and keys.  [default: $SANDGATE_STATE; without it /var/lib/sandgate for "
        "root, ~/.local/share/sandgate for others]",
        show_default=False,
        metavar="FOLDER",
    ),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        help="PostgreSQL instead of SQLite in the state folder: postgresql://USER:PASSWORD@HOST/DATABASE. Safer as "
        "$SANDGATE_DATABASE_URL, which other users cannot see.",
        metavar="URL",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="How many at most.")]


def read(**overrides: Any) -> "Settings":
    """The settings from the environment variables and, stronger, from options. Raises ``InvalidSettings``."""
    from sandgate.config.settings import read_settings

    try:
        settings = read_settings(os.environ, overrides)
    except ConfigurationError as error:
        raise InvalidSettings(error.message, error.details) from None
    return settings.model_copy(update={"state": settings.state.absolute()})


@asynccontextmanager
async def opened_store(settings: "Settings", *, create: bool = False) -> "AsyncIterator[SqlStore]":
    """The database, beside a server that may be running on it.

    Unless ``create``, a database that is not there is refused: the state folder is probably another one. The schema of
    one that is there is never changed here, because the server that runs on it may be older.
    Raises ``ConfigurationError``, ``StoreUnavailable``.
    """
    from sandgate.config.paths import database_location
    from sandgate.store.revisions import current_revision
    from sandgate.store.sql_store import SqlStore
    from sandgate.telemetry.log import set_up_logging

    set_up_logging("debug" if settings.log_level == "debug" else "warning", settings.log_format)
    location = database_location(settings)
    is_missing = isinstance(location, Path) and not location.exists()
    if is_missing and not create:
        raise ConfigurationError(
            f"There is no database {location}; name the server's folder with --state, or run: sandgate migrate"
        )
    is_new = is_missing or (create and current_revision(location) is None)
    store = SqlStore(location, read_threads=1, migrate=is_new, checkpoint=False)
    await store.open()
    try:
        yield store
    finally:
        await store.close()
