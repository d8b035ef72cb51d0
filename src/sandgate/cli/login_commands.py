"""``sandgate login``, ``logout`` and ``whoami``.

A login exchanges the password for an API key that expires; the password is sent once and stored nowhere.
"""

import os
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from sandgate.cli.asking import ask, read_line
from sandgate.cli.connection import ProfileOption, find_login, profile_name
from sandgate.cli.credentials import Profile, change_profiles, credentials_path, read_profiles
from sandgate.cli.exits import WrongUsage
from sandgate.cli.printable import one_line
from sandgate.cli.state import JsonOption
from sandgate.cli.terminal import print_json, show_time
from sandgate.sdk.address import is_readable_on_the_way, parse_address
from sandgate.sdk.errors import ApiError, ClientError

if TYPE_CHECKING:
    from sandgate.sdk.answers import Me
    from sandgate.sdk.client import Client

_USUAL_ADDRESS = "http://127.0.0.1:8080"
_DAY_S = 86_400
_LONGEST_LABEL = 100


def login(
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="URL", help="Address of the server, as in https://sandgate.example:8080.", show_default=False
        ),
    ] = None,
    username: Annotated[
        str | None, typer.Option("--username", "-u", help="Who logs in.", show_default=False, metavar="NAME")
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from the first line of standard input.")
    ] = False,
    api_key_stdin: Annotated[
        bool, typer.Option("--api-key-stdin", help="Read an API key from standard input, instead of making one.")
    ] = False,
    expires_days: Annotated[
        int, typer.Option("--expires-days", min=1, max=3650, help="Days until this login ends.", metavar="DAYS")
    ] = 90,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Log in to a server: what other commands need from then on.

    The password is asked for, exchanged for an API key, and stored nowhere. The key goes to
    ~/.config/sandgate/credentials.json, which only you can read. With --profile, several servers side by side.

    With --json: {"profile", "url", "username", "expires_at"}.
    """
    if password_stdin and api_key_stdin:
        raise WrongUsage("Standard input has a password or an API key, not both")
    name = profile_name(os.environ, profile)
    before = read_profiles(credentials_path(os.environ)).get(name)
    server = _find_address(address, before)
    _warn(server)
    made = _take_key(server) if api_key_stdin else _log_in(server, username, password_stdin, expires_days, before)
    change_profiles(credentials_path(os.environ), lambda profiles: profiles.update({name: made}))
    if as_json:
        facts = {"profile": name, "url": made.address, "username": made.username, "expires_at": made.expires_at}
        print_json(facts)
        return
    until = f" until {made.expires_at}" if made.expires_at else ""
    typer.echo(f"Logged in to {made.address} as {one_line(made.username)}{until}.")


def logout(profile: ProfileOption = None) -> None:
    """Forget a login.

    The API key that it made is ended on the server, too.
    """
    name = profile_name(os.environ, profile)
    path = credentials_path(os.environ)
    saved = read_profiles(path).get(name)
    if saved is None:
        typer.echo(f"There is no login called {name}.")
        return
    problem = _end_key(saved)
    change_profiles(path, lambda profiles: profiles.pop(name, None))
    typer.echo(f"Logged out of {saved.address}.")
    if problem:
        typer.echo(f"sandgate: the API key could not be ended on the server: {one_line(problem)}", err=True)


def whoami(profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Say which server is used, and as whom.

    With --json: {"url", "profile", "username", "role", "user_id", "credential"}.
    """
    login_ = find_login(os.environ, profile)
    me = _ask_who(login_.address, login_.credential)
    if as_json:
        print_json({"url": login_.address, "profile": login_.profile, **me.model_dump()})
        return
    source = "variables" if login_.profile is None else f"the login {login_.profile}"
    typer.echo(f"{one_line(me.username)} ({one_line(me.role)}) on {login_.address}, by {source}.")


def _find_address(given: str | None, before: Profile | None) -> str:
    """The server that is meant, asked for where nothing says it."""
    known = given or os.environ.get("SANDGATE_URL")
    if known:
        return parse_address(known)
    usual = _USUAL_ADDRESS if before is None else before.address
    if not sys.stdin.isatty():
        return usual
    asked: str = typer.prompt("Server", default=usual)
    return parse_address(asked)


def _warn(server: str) -> None:
    if is_readable_on_the_way(server):
        typer.echo(f"sandgate: {server} is not encrypted; others on the network may read what is sent", err=True)


def _log_in(
    server: str, username: str | None, password_stdin: bool, expires_days: int, before: Profile | None
) -> Profile:
    """Exchange name and password for a key of the login's own."""
    from sandgate.sdk.client import Client

    name = username or ask("User name", "--username")
    password = read_line() if password_stdin else ask("Password", "--password-stdin", hide=True)
    with Client(server) as client:
        token = client.issue_token(name, password)
    with Client(server, token.access_token) as client:
        made = _make_key(client, name, token.access_token, expires_days)
        if before is not None and before.address == client.address:
            _end_key_of_before(client, before)
        if made.api_key_id is not None:
            # Nothing uses the token any more; that it ends by itself soon is as good.
            with suppress(ClientError):
                client.revoke_token()
    return made


def _make_key(client: "Client", name: str, token: str, expires_days: int) -> Profile:
    """A profile with a new key; with the token where its owner may make no keys, as viewers may not."""
    label = f"sandgate login on {socket.gethostname()}"[:_LONGEST_LABEL]
    label = "".join(character for character in label if character.isprintable())
    try:
        key = client.create_api_key(label, expires_days * _DAY_S)
    except ApiError as error:
        if error.status != 403:
            raise
        typer.echo("sandgate: you may make no API keys; this login ends with its token, soon", err=True)
        return Profile(client.address, name, token)
    expires_at = None if key.expires_at is None else show_time(key.expires_at)
    return Profile(client.address, name, key.api_key or "", key.api_key_id, expires_at)


def _end_key_of_before(client: "Client", before: Profile) -> None:
    """The key of the login that is replaced is of no use any more, if it was the same user's."""
    if before.api_key_id is not None:
        with suppress(ClientError):
            client.delete_api_key(before.api_key_id)


def _take_key(server: str) -> Profile:
    """A profile with a key that is given."""
    key = read_line().strip()
    return Profile(server, _ask_who(server, key).username, key)


def _ask_who(server: str, credential: str) -> "Me":
    from sandgate.sdk.client import Client

    with Client(server, credential) as client:
        return client.get_me()


def _end_key(saved: Profile) -> str:
    """End the key on the server; answers why that was not possible. Keys that were given are their owner's."""
    from sandgate.sdk.client import Client

    if saved.api_key_id is None:
        return ""
    try:
        with Client(saved.address, saved.credential) as client:
            client.delete_api_key(saved.api_key_id)
    except ApiError as error:
        # It has expired, or was ended before: just what is wanted.
        return "" if error.status in (401, 404) else error.message
    except ClientError as error:
        return error.message
    return ""
