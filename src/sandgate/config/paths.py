"""Where things are in the state folder, for the server and for commands that work beside it."""

from pathlib import Path

from sandgate.config.settings import Settings


def database_location(settings: Settings) -> str | Path:
    """The URL of PostgreSQL, or the path of SQLite's file."""
    return settings.database_url.get_secret_value() or settings.state / "sandgate.db"


def keys_folder(settings: Settings) -> Path:
    """The folder of the signing keys."""
    return settings.state / "keys"


def interpreter_folders(settings: Settings) -> tuple[Path, ...]:
    """The folders that the setting ``interpreters`` names."""
    return tuple(Path(folder) for folder in settings.interpreters.split(":") if folder)
