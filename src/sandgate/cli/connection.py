"""Which server a command talks to, and as whom.

``--profile`` is strongest, then the variables ``SANDGATE_URL`` with ``SANDGATE_API_KEY`` or ``SANDGATE_TOKEN``, then
the login of the name in ``SANDGATE_PROFILE``, then the one called ``default``. A stored credential is sent to the
server that it is of, and to no other.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from sandgate.cli.credentials import DEFAULT_PROFILE, Profile, check_profile_name, credentials_path, read_profiles
from sandgate.cli.exits import NotLoggedIn
from sandgate.sdk.address import parse_address

if TYPE_CHECKING:
    from sandgate.sdk.client import Client

ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", help="Name of the login to use.", show_default=False, metavar="NAME"),
]


@dataclass(frozen=True, slots=True)
class Login:
    """A server and who asks; ``profile`` is the name of a stored login, None for one that variables give."""

    address: str
    credential: str = field(repr=False)
    profile: str | None = None


def profile_name(environ: Mapping[str, str], chosen: str | None) -> str:
    """The name of the login that is meant."""
    return check_profile_name(chosen or environ.get("SANDGATE_PROFILE") or DEFAULT_PROFILE)


def find_login(environ: Mapping[str, str], chosen: str | None = None) -> Login:
    """The server and credential that are meant. Raises ``NotLoggedIn``, ``InvalidAddress``, ``ConfigurationError``."""
    address, credential = environ.get("SANDGATE_URL"), _credential(environ)
    if chosen is None and address and credential:
        return Login(parse_address(address), credential)
    name = profile_name(environ, chosen)
    profiles = read_profiles(credentials_path(environ))
    if chosen is None and (address or credential):
        return _complete(address, credential, profiles.get(name), name)
    if name not in profiles:
        known = f"; there are: {', '.join(profiles)}" if profiles else ""
        raise NotLoggedIn(f"There is no login called {name}{known}. Log in with: {_login_command(name)}")
    return Login(profiles[name].address, profiles[name].credential, name)


def connect(chosen: str | None = None) -> "Client":
    """A client of the server that is meant. Raises as :func:`find_login`."""
    from sandgate.sdk.client import Client

    login = find_login(os.environ, chosen)
    return Client(login.address, login.credential)


def _credential(environ: Mapping[str, str]) -> str | None:
    return environ.get("SANDGATE_API_KEY") or environ.get("SANDGATE_TOKEN")


def _complete(address: str | None, credential: str | None, saved: Profile | None, name: str) -> Login:
    """What variables leave out comes from the login of that name, where it fits."""
    if address is None or not address:
        if saved is None or credential is None:
            raise NotLoggedIn("SANDGATE_API_KEY or SANDGATE_TOKEN is set, but not for which server; set SANDGATE_URL")
        return Login(saved.address, credential)
    wanted = parse_address(address)
    if saved is None or saved.address != wanted:
        raise NotLoggedIn(
            f"SANDGATE_URL is {wanted}, but no login called {name} is of that server; set SANDGATE_API_KEY, or run: "
            f"{_login_command(name)}"
        )
    return Login(wanted, saved.credential, name)


def _login_command(name: str) -> str:
    return "sandgate login" if name == DEFAULT_PROFILE else f"sandgate login --profile {name}"
