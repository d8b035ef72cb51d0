"""Servers that somebody has logged in to: ``credentials.json`` in the user's configuration folder.

The file holds addresses and API keys, never a password. It is readable by its owner only, and replaced as a whole.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sandgate.auth.private_files import locked_folder, make_private_folder, read_private_file, replace_private_file
from sandgate.cli.exits import WrongUsage
from sandgate.core.errors import ConfigurationError

DEFAULT_PROFILE = "default"

_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Profile:
    """A login. ``api_key_id`` is there when the login made the key, ``expires_at`` when the key has an end."""

    address: str
    username: str
    credential: str = field(repr=False)
    api_key_id: str | None = None
    expires_at: str | None = None


Profiles = Mapping[str, Profile]


def check_profile_name(name: str) -> str:
    """Raises ``WrongUsage`` unless a login can have this name."""
    if not _NAME.fullmatch(name):
        raise WrongUsage(f"{name!r} is no name of a login; it has 1 to 64 letters, digits, dots, _ and -")
    return name


def credentials_path(environ: Mapping[str, str]) -> Path:
    """Where the file is. Source: XDG Base Directory Specification, which ignores relative paths."""
    base = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):
        try:
            base = str(Path.home() / ".config")
        except RuntimeError as error:
            raise ConfigurationError("There is no home folder to keep logins in; set XDG_CONFIG_HOME") from error
    return Path(base) / "sandgate" / "credentials.json"


def read_profiles(path: Path) -> Profiles:
    """The logins by their names; none when there is no file. Raises ``ConfigurationError``."""
    data = read_private_file(path)
    if data is None:
        return {}
    try:
        document = json.loads(data)
        if document["version"] != _VERSION:
            raise ConfigurationError(f"{path} is of another version of sandgate; log in with that one")
        return {name: Profile(**_texts(row)) for name, row in document["profiles"].items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ConfigurationError(f"{path} is damaged; remove it and log in again") from None


def change_profiles(path: Path, change: Callable[[dict[str, Profile]], object]) -> None:
    """Change the logins; of several processes that do so at once, none loses what another writes.

    Raises ``ConfigurationError``.
    """
    make_private_folder(path.parent)
    with locked_folder(path.parent):
        profiles = dict(read_profiles(path))
        change(profiles)
        rows = {name: asdict(profile) for name, profile in sorted(profiles.items())}
        replace_private_file(path, json.dumps({"version": _VERSION, "profiles": rows}, indent=2).encode() + b"\n")


def _texts(row: Mapping[str, Any]) -> dict[str, Any]:
    """Raises ``TypeError`` for values that no login has."""
    if not all(value is None or isinstance(value, str) for value in row.values()):
        raise TypeError
    return dict(row)
