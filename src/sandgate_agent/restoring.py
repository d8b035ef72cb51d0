"""Lays a snapshot out in another sandbox; see ``snapshotting``.

Of the bits of a mode those that give away powers are not kept, and all is owned by whoever lays it out.
"""

import os
from typing import Any, Callable, Dict, List

from sandgate_agent.file_changes import delete_tree, write_all
from sandgate_agent.file_worker import OperationRefused, Worker
from sandgate_agent.laying import INVALID, Caps, Layout, Parts, refuse, shown, times
from sandgate_agent.untar import Stream, TarReader

# Of code in a sandbox.
_USER_ID = 1000
_PAGE = 4096


class Restorer(Layout):
    """Lays a snapshot out in its place at once: nobody uses the sandbox before all of it is there."""

    def __init__(self, root: str, tops: List[str], caps: Caps) -> None:
        super().__init__(root, caps)
        self._path = root
        self._tops = tops

    def clear(self) -> None:
        """Take away what the template has put there: what the snapshot lacks had been removed."""
        for top in self._tops:
            try:
                entries = list(os.scandir(os.path.join(self._path, top)))
            except FileNotFoundError:
                continue
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    delete_tree(entry.path)
                else:
                    os.unlink(entry.path)

    def fifo(self, name: str, mode: int, modified_ns: int) -> None:
        """A named pipe."""
        parts = self._split(name)
        self._count("files", name)
        parent = self._open_parent(parts, name)
        try:
            os.mkfifo(parts[-1], mode & 0o777, dir_fd=parent)
        except FileExistsError:
            raise refuse(name, "comes twice") from None
        os.utime(parts[-1], ns=times(modified_ns), dir_fd=parent, follow_symlinks=False)

    def finish(self) -> Dict[str, Any]:
        """Permissions and times of folders; what there is."""
        self._set_folders(self._root)
        return {**self.counts, "bytes": self._bytes}

    def _write(self, descriptor: int, piece: bytes) -> None:
        """What is zeros takes no room."""
        if len(piece) >= _PAGE and not piece[0] and not piece[-1] and piece.count(b"\0") == len(piece):
            os.lseek(descriptor, len(piece), os.SEEK_CUR)
        else:
            write_all(descriptor, piece)

    def _end_file(self, descriptor: int) -> None:
        os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR))

    def _set_folder(self, descriptor: int, mode: int, modified_ns: int) -> None:
        if os.fstat(descriptor).st_uid == os.getuid():
            super()._set_folder(descriptor, mode, modified_ns)

    def _split(self, name: str) -> Parts:
        parts = super()._split(name)
        plain = "/".join(parts) + "/"
        if not any(plain.startswith(top + "/") for top in self._tops):
            raise OperationRefused(
                INVALID, "the entry {!r} is in no folder of a snapshot".format(shown(name)), shown(name)
            )
        return parts


class SnapshotReader(TarReader):
    """Knows named pipes, too."""

    def _lay_out_other(self, kind: bytes, name: str, mode: int, modified_ns: int) -> None:
        if kind != b"6":
            super()._lay_out_other(kind, name, mode, modified_ns)
        self._unpacker.fifo(name, mode, modified_ns)  # type: ignore[attr-defined]


def _restore(worker: Worker, tops: List[str], most_entries: int, most_bytes: int, root: str = "/") -> None:
    if root == "/" and os.getuid() != _USER_ID:
        # Much would be taken away.
        raise OperationRefused("EPERM", "this is no sandbox")
    caps = Caps(most_entries, most_bytes, overwrite=True, outside_links=True)
    restorer = Restorer(root, tops, caps)
    pieces = worker.pieces()
    try:
        restorer.clear()
        SnapshotReader(Stream(pieces), restorer, caps).lay_out()
        # That it has come whole is known at its end only.
        for _piece in pieces:
            continue
        worker.answer(restorer.finish())
    finally:
        restorer.close()


OPERATIONS: Dict[str, Callable[..., None]] = {"restore": _restore}
