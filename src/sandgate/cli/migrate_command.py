"""``sandgate migrate``: the database's schema."""

from typing import Annotated

import typer

from sandgate.cli import state as state_folder
from sandgate.cli.exits import EXIT_REFUSED
from sandgate.cli.state import DatabaseOption, StateOption


def migrate(
    state: StateOption = None,
    database_url: DatabaseOption = None,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit code 1 when there is work.")] = False,
) -> None:
    """Bring the database's schema up to date.

    Makes a database where there is none.
    """
    from sandgate.config.paths import database_location
    from sandgate.store import revisions

    location = database_location(state_folder.read(state=state, database_url=database_url))
    if not check:
        typer.echo(f"The schema has version {revisions.migrate(location)}.")
        return
    wanted = revisions.head_revision()
    present = None if not isinstance(location, str) and not location.exists() else revisions.current_revision(location)
    if present != wanted:
        typer.echo(f"The schema has version {present or 'none'}, this program needs {wanted}; run: sandgate migrate")
        raise typer.Exit(EXIT_REFUSED)
    typer.echo(f"The schema has version {wanted}, which this program needs.")
