"""The files of snapshots: below one folder a file for each, private, and never seen half written.

Names are ids that the service made. All of this blocks, and is for threads.
"""

import errno
import hashlib
import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from sandgate.core.ids import SnapshotId
from sandgate.store.durable import sync_folder

_WRITE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WHOLE, _PART = ".tar", ".part"
_PIECE_BYTES = 1 << 20


class SnapshotWriter:
    """Writes one. Exactly one of ``finish``, ``discard`` and ``reopen`` comes last.

    Whoever gives up discards it while a thread may still be at it, which then raises ``OSError``.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._part = folder / (name + _PART)
        self._whole = folder / (name + _WHOLE)
        self._descriptor = os.open(self._part, _WRITE_FLAGS, 0o600)
        self._digest = hashlib.sha256()
        # Held by whoever uses the descriptor or the name: once it is closed, its number may be another file's.
        self._lock = threading.Lock()

    def write(self, piece: bytes) -> None:
        """Go on with these. Raises ``OSError``."""
        with self._open() as descriptor:
            self._digest.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(descriptor, view) :]

    @property
    def descriptor(self) -> int:
        """See ``SnapshotSink``. Raises ``OSError``."""
        with self._open() as descriptor:
            return descriptor

    def take_up(self) -> int:
        """See ``SnapshotSink``. Raises ``OSError``."""
        size = 0
        while piece := self._read(size):
            self._digest.update(piece)
            size += len(piece)
        return size

    def finish(self) -> bytes:
        """It is on the disk, whole, whatever happens from now on; its SHA-256. Raises ``OSError``."""
        with self._open() as descriptor:
            os.fsync(descriptor)
            self._close()
            self._part.rename(self._whole)
            sync_folder(self._folder)
            return self._digest.digest()

    def discard(self) -> None:
        """There is no such file any more, once whoever is at it has come to the end of that."""
        with self._lock:
            self._close()
            for path in (self._part, self._whole):
                path.unlink(missing_ok=True)

    def reopen(self) -> int:
        """A descriptor for reading what was written, which nobody else will find. Raises ``OSError``."""
        with self._open() as descriptor:
            self._part.unlink()
            self._descriptor = -1
            return descriptor

    @contextmanager
    def _open(self) -> Iterator[int]:
        """Nobody closes it meanwhile. Raises ``OSError`` when somebody has."""
        with self._lock:
            if self._descriptor < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            yield self._descriptor

    def _read(self, offset: int) -> bytes:
        with self._open() as descriptor:
            return os.pread(descriptor, _PIECE_BYTES, offset)

    def _close(self) -> None:
        """With the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class SnapshotFiles:
    """The folder of a server's snapshots."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, snapshot_id: SnapshotId) -> SnapshotWriter:
        """A new file, which is nobody's before it is finished. Raises ``OSError``."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return SnapshotWriter(self._folder, snapshot_id)

    def open(self, snapshot_id: SnapshotId) -> int:
        """A descriptor for reading; the caller closes it. Raises ``OSError``."""
        return os.open(self._folder / (snapshot_id + _WHOLE), _READ_FLAGS)

    def delete(self, snapshot_ids: Collection[SnapshotId]) -> None:
        """Remove files; none is no error. Raises ``OSError``."""
        for snapshot_id in snapshot_ids:
            (self._folder / (snapshot_id + _WHOLE)).unlink(missing_ok=True)

    def list(self) -> Collection[SnapshotId]:
        """Those that are there, whole. Raises ``OSError``."""
        return [SnapshotId(name.removesuffix(_WHOLE)) for name in self._names() if name.endswith(_WHOLE)]

    def clear(self) -> None:
        """Remove what an earlier process did not finish. Raises ``OSError``."""
        for name in self._names():
            if name.endswith(_PART):
                (self._folder / name).unlink(missing_ok=True)

    def _names(self) -> Collection[str]:
        return os.listdir(self._folder) if self._folder.is_dir() else ()
