"""Which database the files in a state folder belong to, by a mark in it.

What has no row is removed: the files of snapshots, templates and artifacts that nobody knows any more. A database that
knows nothing of them because it is another one must never get as far as that.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sandgate.core.errors import ConfigurationError
from sandgate.store.durable import sync_folder

MARK = "database-of-files"


def claim_files(state: Path, identity: str, folders: Sequence[Path], *, is_new: bool) -> None:
    """See to it that what is in ``folders``, below ``state``, belongs to the database, and mark it. It blocks.

    What has no mark belongs to it unless the database ``is_new``. Raises ``ConfigurationError``, with nothing changed.
    """
    mark = _read(state / MARK)
    if mark == identity:
        return
    held = [str(folder) for folder in folders if _holds_something(folder)]
    if held and (mark is not None or is_new):
        raise ConfigurationError(
            f"The state folder {state} holds files of another database than the one that this server is to use, which "
            "knows nothing of them. Start it with the database that they belong to; or move them away, to begin "
            f"without them: {', '.join(held)}"
        )
    try:
        _write(state / MARK, identity)
    except OSError as error:
        raise ConfigurationError(f"{state / MARK} cannot be written: {error.strerror}") from error


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    """It is there whole, on the disk, or as it was before."""
    draft = path.with_name(f"{path.name}.part")
    with suppress(FileNotFoundError):
        draft.unlink()
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(descriptor)
    draft.rename(path)
    sync_folder(path.parent)


def _holds_something(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(True for _entry in entries)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be read: {error.strerror}") from error
