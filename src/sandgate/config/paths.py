"""What follows from the path of the state folder, for the server and for commands that work beside it."""

import hashlib
import os
from pathlib import Path

from sandgate.config.settings import Settings

# Of the state folder, what stays root's.
LAUNCHERS_FOLDERS = ("volumes", "disks")
# What may be large, and nobody but the gateway writes into.
GATEWAYS_FOLDERS = ("artifacts", "snapshots", "templates/layers")

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


def snapshots_folder(settings: Settings) -> Path:
    """The folder of the files of snapshots."""
    return settings.state / "snapshots"


def volumes_folder(settings: Settings) -> Path:
    """The folder of users' volumes, which is the launcher's alone."""
    return settings.state / "volumes"


def layers_folder(settings: Settings) -> Path:
    """The folder of what was built for templates."""
    return settings.state / "templates" / "layers"


def build_logs_folder(settings: Settings) -> Path:
    """The folder of what builds of templates have said."""
    return settings.state / "templates" / "logs"


def disks_folder(settings: Settings) -> Path | None:
    """The folder of what files of environments are on, which is the launcher's alone; None: they are in memory."""
    return settings.state / "disks" if settings.environment_disk == "image" else None


def interpreter_folders(settings: Settings) -> tuple[Path, ...]:
    """The folders that the setting ``interpreters`` names."""
    return tuple(Path(folder) for folder in settings.interpreters.split(":") if folder)
