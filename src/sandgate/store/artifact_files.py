"""The bytes of artifacts: below one folder a folder for each run, in it one file for each attempt that left some.

Names are ids that the service made; nothing that comes from a sandbox is part of a path. All of this blocks, and is
for threads.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sandgate.core.ids import RunId, make_id
from sandgate.store.base.artifacts import Pack, PackedFile
from sandgate.store.durable import sync_folder

_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Open:
    """The file that pieces belong to now."""

    path: str
    offset: int
    digest: "hashlib._Hash"


class PackWriter:
    """Writes what one attempt left. Either ``finish`` or ``discard`` comes last."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder
        self._path = folder / name
        self._file = os.fdopen(os.open(self._path, _WRITE_FLAGS, 0o600), "wb", buffering=0)
        self._size = 0
        self._open: _Open | None = None
        self._files: list[PackedFile] = []

    def write(self, parts: Iterable[str | bytes]) -> None:
        """Go on with these: a text begins a file of that name, bytes belong to the file begun last.

        Raises ``OSError``.
        """
        for part in parts:
            if isinstance(part, str):
                self._close_file()
                self._open = _Open(part, self._size, hashlib.sha256())
            elif self._open is not None:
                self._open.digest.update(part)
                view = memoryview(part)
                while view:
                    view = view[self._file.write(view) or 0 :]
                self._size += len(part)

    def finish(self) -> Sequence[PackedFile]:
        """Everything is on the disk, whatever happens from now on; what the pack holds. Raises ``OSError``."""
        self._close_file()
        os.fsync(self._file.fileno())
        self._file.close()
        for folder in (self._folder, *list(self._folder.parents)[:2]):
            sync_folder(folder)
        return self._files

    def discard(self) -> None:
        """There is no such file any more."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _close_file(self) -> None:
        if self._open is not None:
            size = self._size - self._open.offset
            self._files.append(PackedFile(self._open.path, self._open.offset, size, self._open.digest.digest()))
            self._open = None


class ArtifactFiles:
    """The folder of a server's artifacts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, run_id: RunId) -> PackWriter:
        """A new pack of a run. Raises ``OSError``."""
        folder = self._folder / run_id
        while True:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The last pack may have been removed just now, and the folder with it.
            with suppress(FileNotFoundError):
                return PackWriter(folder, make_id("pack"))

    def open(self, pack: Pack) -> int:
        """A descriptor for reading; the caller closes it. Raises ``OSError``."""
        return os.open(self._folder / pack.run_id / pack.name, _READ_FLAGS)

    def delete(self, packs: Iterable[Pack]) -> None:
        """Remove packs, and the folders of runs that have none left. Raises ``OSError``."""
        for pack in packs:
            folder = self._folder / pack.run_id
            (folder / pack.name).unlink(missing_ok=True)
            with suppress(OSError):
                # Fails unless it is empty.
                folder.rmdir()

    def delete_runs(self, run_ids: Iterable[RunId]) -> None:
        """Remove all that these runs have. Raises ``OSError``."""
        for run_id in run_ids:
            folder = self._folder / run_id
            if folder.is_dir():
                shutil.rmtree(folder)

    def list_runs(self, after: str, most: int) -> Sequence[tuple[RunId, datetime]]:
        """Runs that have a folder, in order of their ids, and when something was last added. Raises ``OSError``."""
        if not self._folder.is_dir():
            return []
        names = sorted(name for name in os.listdir(self._folder) if name.startswith("run-") and name > after)[:most]
        return [(RunId(name), self._changed_at(name)) for name in names]

    def _changed_at(self, name: str) -> datetime:
        return datetime.fromtimestamp(os.lstat(self._folder / name).st_mtime, UTC)
