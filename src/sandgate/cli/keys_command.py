"""``sandgate keys``: the keys that tokens are signed with."""

from typing import Annotated

import typer

from sandgate.cli import state as state_folder
from sandgate.cli.state import StateOption
from sandgate.core.errors import ConfigurationError

app = typer.Typer(no_args_is_help=True, help="The keys that tokens are signed with.", rich_markup_mode=None)


@app.callback()
def _keys() -> None:
    """The keys that tokens are signed with."""


@app.command("rotate")
def rotate(
    state: StateOption = None,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="End every token at once: for when a key has become known.")
    ] = False,
) -> None:
    """Sign with a new key from now on.

    A running server takes it up within a second, and logs nobody out.
    """
    from sandgate.auth.keys import KeyRing
    from sandgate.config.paths import keys_folder
    from sandgate.core.clock import SystemClock

    settings = state_folder.read(state=state)
    if not settings.state.is_dir():
        raise ConfigurationError(f"There is no state folder {settings.state}; name the server's with --state")
    key = KeyRing(keys_folder(settings), SystemClock()).rotate(drop_old=drop_old)
    typer.echo(f"Tokens are signed with the new key {key.kid}.")
