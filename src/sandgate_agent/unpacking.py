"""Unpacks an archive into a folder: beside its place first, and in its place when all of it is there.

What is no file, folder or link is refused. Whatever goes wrong, nothing of it has been put in its place.
"""

import errno
import fcntl
import os
import stat
from typing import Any, Dict, Iterator

from sandgate_agent.file_changes import delete_tree
from sandgate_agent.laying import FOLDER_FLAGS, Caps, Layout, shown

# As the gateway calls them, with 16 digits behind.
_STAGING = ".unpack-"
_STAGING_LENGTH = len(_STAGING) + 16


class Unpacker(Layout):
    """A folder that is filled from an archive. ``staging`` is the name of the folder that is filled first."""

    def __init__(self, target: str, staging: str, caps: Caps) -> None:
        self._target = os.path.realpath(target)
        self._is_new = not os.path.lexists(self._target)
        if not self._is_new and not os.path.isdir(self._target):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), target)
        self._staging = os.path.join(home_of(self._target), staging)
        self._ways = list(_missing(os.path.dirname(self._staging)))
        os.makedirs(os.path.dirname(self._staging), exist_ok=True)
        _clear_up(os.path.dirname(self._staging))
        self._own = _make_own(self._staging)
        super().__init__(self._staging, caps)

    def close(self) -> None:
        """Let go of the folders."""
        super().close()
        os.close(self._own)

    @property
    def staging(self) -> str:
        """Where the folder is that is filled first."""
        return self._staging

    def finish(self) -> Dict[str, Any]:
        """Put all of it in its place; what there is."""
        if self._is_new:
            os.fchmod(self._root, 0o755)
            os.rename(self._staging, self._target)
            self._set_folders(self._root)
        else:
            self._merge()
        return {**self.counts, "bytes": self._bytes}

    def drop(self) -> None:
        """There is nothing of it, nor of the way to it."""
        discard(self._staging)
        for folder in self._ways:
            try:
                os.rmdir(folder)
            except OSError:
                # Something else is there by now, or it is gone.
                return

    def _merge(self) -> None:
        target = os.open(self._target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._move(target)
        finally:
            os.close(target)
        delete_tree(self._staging)

    def _move(self, target: int) -> None:
        shared = self._find_shared(target)
        moved = 0
        try:
            for folder in shared:
                for name in os.listdir(os.path.join(self._staging, folder)):
                    path = folder + name
                    if path + "/" not in shared:
                        os.rename(path, path, src_dir_fd=self._root, dst_dir_fd=target)
                        moved += 1
            self._set_folders(target)
        except OSError as error:
            already = "{} of it had been put in place".format(moved)
            raise OSError(error.errno, "{}; {}".format(error.strerror, already), error.filename) from None

    def _find_shared(self, target: int) -> Dict[str, None]:
        """The folders that are there already, in order, once it is sure that nothing is in the way."""
        todo = [""]
        for folder in todo:
            if not os.access(folder or ".", os.W_OK | os.X_OK, dir_fd=target):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES), shown(folder))
            for name in os.listdir(os.path.join(self._staging, folder)):
                path = folder + name
                if self._check_place(path, target):
                    todo.append(path + "/")
        return dict.fromkeys(todo)

    def _check_place(self, path: str, target: int) -> bool:
        """Whether this is a folder that is there already. Raises ``OSError`` where something is in the way."""
        try:
            there = os.lstat(path, dir_fd=target)
        except FileNotFoundError:
            return False
        is_folder = stat.S_ISDIR(os.lstat(path, dir_fd=self._root).st_mode)
        if is_folder and stat.S_ISDIR(there.st_mode):
            return True
        if is_folder or stat.S_ISDIR(there.st_mode):
            kind = errno.ENOTDIR if is_folder else errno.EISDIR
            raise OSError(kind, "{} is in the way".format("it" if is_folder else "a folder"), shown(path))
        if not self._caps.overwrite:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), shown(path))
        return False


def home_of(target: str) -> str:
    """Where the folder is filled that is to be put at ``target``: in the same file system."""
    return target if os.path.lexists(target) else os.path.dirname(target)


def _make_own(folder: str) -> int:
    """A new folder, open and locked: as long as it is, nobody takes it for one that was left. Raises ``OSError``."""
    while True:
        os.mkdir(folder, 0o700)
        try:
            descriptor = os.open(folder, FOLDER_FLAGS)
        except FileNotFoundError:
            # Somebody who clears up was faster than the lock.
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.lexists(folder) and os.path.samestat(os.fstat(descriptor), os.lstat(folder)):
            return descriptor
        os.close(descriptor)


def _clear_up(home: str) -> None:
    """Remove the folders that were filled when their whole gateway was killed, and nobody was there to do it."""
    try:
        names = os.listdir(home)
    except OSError:
        return
    for name in names:
        if not name.startswith(_STAGING) or len(name) != _STAGING_LENGTH:
            continue
        folder = os.path.join(home, name)
        try:
            descriptor = os.open(folder, FOLDER_FLAGS)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            discard(folder)
        except OSError:
            # Somebody is at work there, or it is not this user's to remove.
            continue
        finally:
            os.close(descriptor)


def _missing(folder: str) -> Iterator[str]:
    """Folders on a way that are not there, the innermost first."""
    while not os.path.lexists(folder):
        yield folder
        folder = os.path.dirname(folder)


def discard(folder: str) -> None:
    """Remove a folder with all that is in it; one that is not there is as good."""
    if os.path.lexists(folder):
        delete_tree(folder)
