"""What follows from the path of the state folder, for the server and for commands that work beside it."""

import hashlib
import os
from pathlib import Path

from sandgate.config.settings import Settings

# Far above the ids of accounts, of containers' usual ranges and of systemd's own users.
_FIRST_BLOCK, _BLOCKS, BLOCK_IDS = 1_879_048_192, 8192, 65_536


def state_name(settings: Settings) -> str:
    """What tells this server from others on the machine: the same for the same state folder."""
    return hashlib.sha256(str(settings.state.resolve()).encode()).hexdigest()[:12]


def run_folder(settings: Settings) -> Path:
    """Where the launcher's socket is; outside of root's state, so that the next boot finds nothing stale."""
    if os.geteuid() == 0:
        return Path("/run/sandgate") / state_name(settings)
    return settings.state / "run"


def id_block(settings: Settings) -> int:
    """The first of the user ids that belong to this server: the gateway's, then the launcher's, then the sandboxes'."""
    if settings.host_id_base:
        return settings.host_id_base
    return _FIRST_BLOCK + int(state_name(settings), 16) % _BLOCKS * BLOCK_IDS


def database_location(settings: Settings) -> str | Path:
    """The URL of PostgreSQL, or the path of SQLite's file."""
    return settings.database_url.get_secret_value() or settings.state / "sandgate.db"


def keys_folder(settings: Settings) -> Path:
    """The folder of the keys that tokens are signed and secrets are sealed with."""
    return settings.state / "keys"


def artifacts_folder(settings: Settings) -> Path:
    """The folder of what steps of workflows left."""
    return settings.state / "artifacts"


def interpreter_folders(settings: Settings) -> tuple[Path, ...]:
    """The folders that the setting ``interpreters`` names."""
    return tuple(Path(folder) for folder in settings.interpreters.split(":") if folder)
