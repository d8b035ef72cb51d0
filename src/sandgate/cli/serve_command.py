"""``sandgate serve``: settings from options, and on to the server."""

from typing import Annotated

import typer

from sandgate.cli import state as state_folder
from sandgate.cli.state import DatabaseOption, StateOption


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    state: StateOption = None,
    allow_weak_isolation: Annotated[
        bool | None,
        typer.Option(
            "--allow-weak-isolation",
            help="Run code without walls where the machine cannot hold the standard class.",
            show_default=False,
        ),
    ] = None,
    database_url: DatabaseOption = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="console or json.")] = None,
) -> None:
    """Run the server.

    Every setting can also be given as an environment variable; `sandgate config` lists them.
    """
    settings = state_folder.read(
        host=host,
        port=port,
        state=state,
        allow_weak_isolation=allow_weak_isolation,
        database_url=database_url,
        log_level=log_level,
        log_format=log_format,
    )
    from sandgate.cli.serve import run

    raise typer.Exit(run(settings))
