"""Files that hold secrets: mode 0600, whole or not there at all, owned by whoever owns their folder.

Everything goes through the descriptor of the folder and follows no symbolic link, because the command line may run as
root in a folder that belongs to the gateway's user. ``OSError`` becomes ``ConfigurationError`` here.
"""

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sandgate.core.errors import ConfigurationError

_LARGEST_BYTES = 64 * 1024
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def _translated(action: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into a sentence that names the path."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"Could not {action} {path}: {error.strerror}", {"path": str(path)}) from error


@contextmanager
def _opened_folder(folder: Path) -> Iterator[int]:
    """A descriptor of the folder."""
    descriptor = os.open(folder, _FOLDER_FLAGS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_private_folder(folder: Path) -> None:
    """Make the folder and those above it unless it exists; mode 0700, owned by the owner of the folder above.

    Raises ``ConfigurationError`` when it cannot be made, or when others may read or write it.
    """
    with _translated("make the folder", folder):
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        else:
            with _opened_folder(folder) as descriptor:
                _give_to_owner_of(os.stat(folder.parent), descriptor)
        with _opened_folder(folder) as descriptor:
            _check_private(folder, os.fstat(descriptor))


def create_private_file(path: Path, data: bytes) -> bool:
    """Write a new file and flush it to the disk; False, with nothing changed, when there is one already.

    Of several processes that do this at once, exactly one is answered True. Raises ``ConfigurationError``.
    """
    with _translated("write", path), _opened_folder(path.parent) as folder:
        temporary = f".{path.name}.{secrets.token_hex(8)}"
        _write_new(folder, temporary, data)
        try:
            # A link, unlike a rename, never replaces what is there.
            os.link(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary, dir_fd=folder)
        os.fsync(folder)
        return True


def replace_private_file(path: Path, data: bytes) -> None:
    """Write a file and flush it to the disk, in the place of one that may be there: readers see the old or the new one.

    Raises ``ConfigurationError``.
    """
    with _translated("write", path), _opened_folder(path.parent) as folder:
        temporary = f".{path.name}.{secrets.token_hex(8)}"
        try:
            _write_new(folder, temporary, data)
            os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
        os.fsync(folder)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep others out who do the same, until the block ends. Raises ``ConfigurationError``."""
    with _translated("lock", folder):
        descriptor = os.open(folder, _FOLDER_FLAGS)
    try:
        with _translated("lock", folder):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_private_file(path: Path) -> bytes | None:
    """The whole file; None when there is none.

    Raises ``ConfigurationError`` when it cannot be read, is no regular file, is larger than 64 KiB, or when others
    may read or write it.
    """
    with _translated("read", path):
        try:
            descriptor = os.open(path, _READ_FLAGS)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_BYTES:
                raise ConfigurationError(f"{path} is not a file that sandgate has written", {"path": str(path)})
            _check_private(path, status)
            return os.read(descriptor, _LARGEST_BYTES)
        finally:
            os.close(descriptor)


def delete_private_file(path: Path) -> None:
    """Remove the file; none is no error. Raises ``ConfigurationError``."""
    with _translated("remove", path):
        path.unlink(missing_ok=True)


def _write_new(folder: int, name: str, data: bytes) -> None:
    """Write and flush a file that did not exist."""
    descriptor = os.open(name, _WRITE_FLAGS, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        _give_to_owner_of(os.fstat(folder), descriptor)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _give_to_owner_of(owner: os.stat_result, descriptor: int) -> None:
    """Root's command line beside a gateway of another user must not leave what that user cannot read."""
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _check_private(path: Path, status: os.stat_result) -> None:
    """Refuse what others may read or write."""
    if status.st_mode & 0o077:
        wanted = "700" if stat.S_ISDIR(status.st_mode) else "600"
        raise ConfigurationError(
            f"{path} holds secrets, but others may read or write it (mode {stat.S_IMODE(status.st_mode):o}); "
            f"run: chmod {wanted} {path}",
            {"path": str(path)},
        )
