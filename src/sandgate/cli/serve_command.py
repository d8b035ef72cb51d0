"""``sandgate serve``: settings from options, and on to the server."""

from typing import Annotated

import typer

from sandgate.cli import state as state_folder
from sandgate.cli.state import DatabaseOption, StateOption


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]", metavar="ADDRESS")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.  [default: 8080]", metavar="PORT")
    ] = None,
    state: StateOption = None,
    allow_weak_isolation: Annotated[
        bool | None,
        typer.Option(
            "--allow-weak-isolation",
            help="Serve without walls where the machine cannot hold them, instead of refusing: for code that you would "
            "run yourself anyway.",
            show_default=False,
        ),
    ] = None,
    database_url: DatabaseOption = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error.  [default: info]", metavar="LEVEL")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="console or json.  [default: console]", metavar="FORMAT")
    ] = None,
) -> None:
    """Run the server until Ctrl-C or SIGTERM.

    Start it as root: only root can put up walls around the code. What talks to the network gives up root at once.
    The first start makes the state folder and the user admin, and says where its password is.

    Settings that have no option here are environment variables, SANDGATE_MEMORY_BYTES for one; `sandgate config` lists
    all of them with what they are set to. `sandgate doctor` says what this machine can hold.
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
