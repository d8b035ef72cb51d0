"""What is in a folder, in order, as it is found while others change it."""

import errno
import os
import stat
from typing import Callable, Iterator, List, NamedTuple

from sandgate_agent.file_worker import OperationRefused

PIECE_BYTES = 256 * 1024
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC


class Found(NamedTuple):
    """Something in the folder, by its name in the archive."""

    name: str
    path: str
    status: os.stat_result

    @property
    def kind(self) -> int:
        """Which kind of thing it is, as ``stat`` has it."""
        return stat.S_IFMT(self.status.st_mode)


class Walk:
    """All that is in a folder, by name: first all of a folder, then what is in each of its folders.

    ``skipped`` counts what is left out: what is no file, folder or link, unless ``every_kind``, and what cannot be
    read. No folder is gone into for whose name ``is_wanted`` says no. More than ``most`` entries are refused, by the
    name ``refusal``.
    """

    def __init__(
        self,
        top: str,
        most: int,
        refusal: str = "ARCHIVE_TOO_LARGE",
        is_wanted: Callable[[str], bool] = lambda _folder: True,
        *,
        every_kind: bool = False,
    ) -> None:
        self._top = top
        self._most = most
        self._refusal = refusal
        self._is_wanted = is_wanted
        self._every_kind = every_kind
        self.skipped = 0

    def __iter__(self) -> Iterator[Found]:
        todo = [""]
        count = 0
        while todo:
            folder = todo.pop()
            inner: List[str] = []
            for found in self._list(folder):
                count += 1
                if count > self._most:
                    raise self._too_many(self._top)
                if found.kind == stat.S_IFDIR and self._is_wanted(found.name):
                    inner.append(found.name + "/")
                if self._every_kind or found.kind in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK):
                    yield found
                else:
                    self.skipped += 1
            todo.extend(reversed(inner))

    def _list(self, folder: str) -> Iterator[Found]:
        try:
            names = self._names(os.path.join(self._top, folder))
        except OSError as error:
            if not folder:
                raise OSError(error.errno, error.strerror, self._top) from None
            # It went, became something else, or is closed.
            self.skipped += 1
            return
        for name in names:
            path = os.path.join(self._top, folder, name)
            try:
                yield Found(folder + name, path, os.lstat(path))
            except OSError:
                self.skipped += 1

    def _names(self, folder: str) -> List[str]:
        """What is in a folder, by name; no link in its place is followed. Raises ``OSError``, ``OperationRefused``."""
        path = folder.rstrip("/") or "/"
        is_top = path == (self._top.rstrip("/") or "/")
        descriptor = os.open(path, _FOLDER_FLAGS | (0 if is_top else os.O_NOFOLLOW))
        try:
            names = []
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    names.append(entry.name)
                    if len(names) > self._most:
                        raise self._too_many(folder)
        finally:
            os.close(descriptor)
        return sorted(names)

    def _too_many(self, folder: str) -> OperationRefused:
        return OperationRefused(self._refusal, "it has more than {} entries".format(self._most), folder)


class Content:
    """A file's bytes: as many as it had when it was opened. Raises ``OSError`` for what is no regular file."""

    def __init__(self, found: Found) -> None:
        self.descriptor = os.open(found.path, _READ_FLAGS)
        status = os.fstat(self.descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(self.descriptor)
            raise OSError(errno.ENODEV, "it is no regular file", found.path)
        self.size = status.st_size

    def pieces(self) -> Iterator[bytes]:
        """All of it; zeros in the place of what has gone meanwhile."""
        left = self.size
        while left > 0:
            piece = self._read(min(left, PIECE_BYTES))
            left -= len(piece)
            yield piece

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)

    def _read(self, length: int) -> bytes:
        try:
            return os.read(self.descriptor, length) or bytes(length)
        except OSError:
            return bytes(length)
