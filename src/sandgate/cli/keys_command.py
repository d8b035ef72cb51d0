"""``sandgate keys``: the keys that tokens are signed with."""

from typing import TYPE_CHECKING, Annotated

import typer

from sandgate.cli import state as state_folder
from sandgate.cli.audit_commands import audited
from sandgate.cli.groups import command_group
from sandgate.cli.state import DatabaseOption, StateOption
from sandgate.core.errors import ConfigurationError, StoreUnavailable

if TYPE_CHECKING:
    from sandgate.auth.keys import KeyRing, SigningKey
    from sandgate.config.settings import Settings

app = command_group("The keys that tokens are signed with.")


@app.callback()
def _keys() -> None:
    """The keys that tokens are signed with."""


@app.command("rotate")
def rotate(
    state: StateOption = None,
    database_url: DatabaseOption = None,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="End every token at once: for when a key has become known.")
    ] = False,
) -> None:
    """Sign with a new key from now on.

    A running server takes it up within a second, and logs nobody out.
    """
    import asyncio

    from sandgate.auth.keys import KeyRing
    from sandgate.config.paths import keys_folder
    from sandgate.core.clock import SystemClock

    settings = state_folder.read(state=state, database_url=database_url)
    if not settings.state.is_dir():
        raise ConfigurationError(f"There is no state folder {settings.state}; name the server's with --state")
    ring = KeyRing(keys_folder(settings), SystemClock())
    key = asyncio.run(_rotate(settings, ring, drop_old=drop_old))
    typer.echo(f"Tokens are signed with the new key {key.kid}.")


async def _rotate(settings: "Settings", ring: "KeyRing", *, drop_old: bool) -> "SigningKey":
    """A new key, of which the audit log is told; a key that has become known must not wait for a database."""
    key = ring.rotate(drop_old=drop_old)
    try:
        async with (
            state_folder.opened_store(settings) as store,
            audited(settings, store, "rotate_keys", drop_old=drop_old) as found,
        ):
            found["resource_id"] = key.kid
    except (ConfigurationError, StoreUnavailable) as fault:
        typer.echo(f"sandgate: the audit log was not told: {fault.message}", err=True)
    return key
