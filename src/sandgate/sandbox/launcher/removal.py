"""Removes a folder with all that is in it, however deep, and whatever code has put there."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> bool:
    """Whether nothing is there any more. Follows no link, and needs three descriptors at most."""
    try:
        with _opened(str(path), None) as top:
            _Emptying(top).run()
        os.rmdir(path)
    except NotADirectoryError:
        # A file or a link in its place.
        with suppress(OSError):
            os.unlink(path)
    except OSError:
        pass
    return not os.path.lexists(path)


def empty_folder(folder: int) -> None:
    """Remove all that is in a folder as far as it can be, by a descriptor of it."""
    _Emptying(folder).run()


@contextmanager
def _opened(name: str, parent: int | None) -> Iterator[int]:
    """The folder, open; one that its owner has locked is unlocked."""
    try:
        descriptor = os.open(name, _FOLDER_FLAGS, dir_fd=parent)
    except PermissionError:
        _unlock(name, parent)
        descriptor = os.open(name, _FOLDER_FLAGS, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _unlock(name: str, parent: int | None) -> None:
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    finally:
        os.close(descriptor)


class _Emptying:
    """Empties a folder. What is further down is moved up first: so it takes neither recursion nor long paths."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._numbers = itertools.count()
        self._folders: list[str] = []

    def run(self) -> None:
        """Remove what can be removed."""
        self._make_writable(self._top)
        self._folders = self._unlink_files(self._top)
        while self._folders:
            name = self._folders.pop()
            with suppress(OSError):
                with _opened(name, self._top) as folder:
                    self._make_writable(folder)
                    for inner in self._unlink_files(folder):
                        self._move_up(folder, inner)
                os.rmdir(name, dir_fd=self._top)

    def _make_writable(self, folder: int) -> None:
        if os.fstat(folder).st_mode & 0o700 != 0o700:
            with suppress(OSError):
                os.fchmod(folder, 0o700)

    def _unlink_files(self, folder: int) -> list[str]:
        """Remove all but the folders in it, whose names are returned."""
        folders: list[str] = []
        with os.scandir(folder) as entries:
            found = list(entries)
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                with suppress(OSError):
                    os.unlink(entry.name, dir_fd=folder)
        return folders

    def _move_up(self, folder: int, name: str) -> None:
        # An empty one is gone at once, and an ordinary user may not move what he has locked.
        with suppress(OSError):
            os.rmdir(name, dir_fd=folder)
            return
        with suppress(OSError):
            with _opened(name, folder) as inner:
                self._make_writable(inner)
            above = self._free_name()
            os.rename(name, above, src_dir_fd=folder, dst_dir_fd=self._top)
            self._folders.append(above)

    def _free_name(self) -> str:
        for number in self._numbers:
            name = f"removed-{number}"
            try:
                os.lstat(name, dir_fd=self._top)
            except FileNotFoundError:
                return name
        raise AssertionError
