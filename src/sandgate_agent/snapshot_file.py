"""A snapshot in a file that is open already, written and laid out again; see ``snapshotting`` and ``restoring``.

For a process that has entered a sandbox from outside and has become its user.
"""

import errno
import os
from typing import Any, Callable, Dict, Iterator, List

from sandgate_agent.file_changes import write_all
from sandgate_agent.file_worker import OperationRefused
from sandgate_agent.laying import Caps
from sandgate_agent.restoring import Restorer, SnapshotReader
from sandgate_agent.snapshotting import Snapshot, SnapshotTar
from sandgate_agent.tarring import BLOCK
from sandgate_agent.untar import Stream
from sandgate_agent.walking import PIECE_BYTES, Content, Found


class Unwritable(Exception):
    """The file cannot be written, which is nobody's fault in the sandbox."""


class Unreadable(Exception):
    """A file of the sandbox cannot be read to its end, though it is there; ``path`` is its name in the archive."""

    def __init__(self, error: OSError, path: str) -> None:
        super().__init__(error.strerror)
        self.code = errno.errorcode.get(error.errno or 0, "EIO")
        self.path = path


class _Archive(SnapshotTar):
    """Written to a file; the contents of files go there within the kernel."""

    def __init__(self, descriptor: int, most_bytes: int) -> None:
        super().__init__(self._gather)
        self._descriptor = descriptor
        self._most_bytes = most_bytes
        self._waiting = bytearray()

    def file(self, found: Found, content: Content) -> None:
        """A file."""
        self._put(self._header(found, b"0", found.name, content.size))
        # Before it is written: one file may be larger than all that there is room for.
        self._check_room(content.size)
        self._flush()
        sent = 0
        while sent < content.size:
            more = self._send(found, content, sent)
            if not more:
                # It has become shorter.
                break
            sent += more
        self._length += sent
        self._put_zeros(content.size - sent + (-content.size) % BLOCK)

    def finish(self) -> None:
        """See ``TarWriter``."""
        super().finish()
        self._flush()

    def _send(self, found: Found, content: Content, offset: int) -> int:
        """How much of it was written."""
        try:
            return os.sendfile(self._descriptor, content.descriptor, offset, content.size - offset)
        except OSError:
            # It does not say which of the two has failed.
            return self._send_piece(found, content, offset)

    def _send_piece(self, found: Found, content: Content, offset: int) -> int:
        try:
            piece = os.pread(content.descriptor, min(PIECE_BYTES, content.size - offset), offset)
        except OSError as error:
            raise Unreadable(error, found.name) from error
        self._write_all(piece)
        return len(piece)

    def _put_zeros(self, length: int) -> None:
        while length > 0:
            self._put(bytes(min(length, PIECE_BYTES)))
            length -= PIECE_BYTES

    def _gather(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) >= PIECE_BYTES:
            self._flush()

    def _check_room(self, more: int) -> None:
        if self._length + more > self._most_bytes:
            raise OperationRefused("SNAPSHOT_TOO_LARGE", "its files are larger than {} bytes".format(self._most_bytes))

    def _flush(self) -> None:
        self._check_room(0)
        self._write_all(bytes(self._waiting))
        self._waiting.clear()

    def _write_all(self, data: bytes) -> None:
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            raise Unwritable(error.strerror) from error


def pack(descriptor: int, tops: List[str], most_entries: int, most_bytes: int, root: str = "/") -> Dict[str, int]:
    """Write all that is in folders; what it was.

    Raises ``OperationRefused``, ``Unwritable``, ``Unreadable``, ``OSError``.
    """
    snapshot = Snapshot(root, tops, most_entries, most_bytes)
    try:
        snapshot.write(_Archive(descriptor, most_bytes))
    finally:
        snapshot.close()
    return snapshot.counts


def lay_out(descriptor: int, tops: List[str], most_entries: int, most_bytes: int, root: str = "/") -> Dict[str, int]:
    """Lay out what is in the file, in the place of what is there. Raises ``OperationRefused``, ``OSError``."""
    caps = Caps(most_entries, most_bytes, overwrite=True, outside_links=True)
    restorer = Restorer(root, tops, caps)
    try:
        restorer.clear()
        SnapshotReader(Stream(_read(descriptor)), restorer, caps).lay_out()
        return restorer.finish()
    finally:
        restorer.close()


def tell(
    work: Callable[[int, List[str], int, int], Dict[str, int]],
    descriptor: int,
    tops: List[str],
    most_entries: int,
    most_bytes: int,
) -> Dict[str, Any]:
    """What one of these answers, or what went wrong as workers answer that, or ``unwritable``."""
    try:
        return dict(work(descriptor, tops, most_entries, most_bytes))
    except Unwritable as error:
        return {"unwritable": str(error)}
    except Unreadable as error:
        return {"error": error.code, "message": "cannot be read: {}".format(error), "path": error.path[:300]}
    except OperationRefused as refusal:
        return {"error": refusal.code, "message": refusal.message[:300], "path": refusal.path[:300]}
    except OSError as error:
        return {"error": errno.errorcode.get(error.errno or 0, "EIO"), "message": error.strerror or "", "path": ""}


def _read(descriptor: int) -> Iterator[bytes]:
    """From the beginning, wherever others are reading it."""
    offset = 0
    while True:
        piece = os.pread(descriptor, PIECE_BYTES, offset)
        if not piece:
            return
        offset += len(piece)
        yield piece
