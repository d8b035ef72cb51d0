"""Writes all that code can change in a sandbox as one tar archive; see ``restoring``.

All other code of the sandbox stands still meanwhile, or it is told whether something has changed. Sockets are left out
and counted, and so is what has no path that could be laid out again.
"""

import os
import stat
import zlib
from typing import Any, Callable, Dict, Iterator, List

from sandgate_agent.file_worker import OperationRefused, Worker
from sandgate_agent.tarring import Out, TarWriter
from sandgate_agent.walking import Content, Found, Walk

_NANOSECONDS = 10**9
# A path that can be laid out again.
_LONGEST_PATH = 3500


class _OwnWalk(Walk):
    """Goes into folders, too, that their owner has closed, and closes them again at the end.

    Of what is mounted there is the folder that it is mounted at, and nothing of its own.
    """

    def __init__(self, top: str, most: int, closed: "Dict[str, int]") -> None:
        super().__init__(top, most, "SNAPSHOT_TOO_LARGE", every_kind=True)
        self._closed = closed
        self._device = os.lstat(top).st_dev

    def _names(self, folder: str) -> List[str]:
        path = folder.rstrip("/") or "/"
        status = os.lstat(path)
        if status.st_dev != self._device:
            return []
        mode = stat.S_IMODE(status.st_mode)
        # What reads it from outside has the power to, and leaves all as it is: it may be killed at any time.
        is_closed = mode & 0o500 != 0o500 and not os.access(path, os.R_OK | os.X_OK, effective_ids=True)
        if is_closed and path not in self._closed:
            os.chmod(path, mode | 0o500)
            self._closed[path] = mode
        return super()._names(folder)


class SnapshotTar(TarWriter):
    """An archive that tells times to the nanosecond, and which names are of one file."""

    def fifo(self, found: Found) -> None:
        """A named pipe."""
        self._put(self._header(found, b"6", found.name, 0))

    def other_name(self, found: Found, first: str) -> None:
        """Another name of a file that came before."""
        self._put(self._header(found, b"1", found.name, 0, first))

    def _tell(self, found: Found) -> Dict[str, bytes]:
        seconds, rest = divmod(max(0, found.status.st_mtime_ns), _NANOSECONDS)
        return {"mtime": b"%d.%09d" % (seconds, rest)} if rest else {}


class Snapshot:
    """One snapshot on its way."""

    def __init__(self, root: str, tops: List[str], most_entries: int, most_bytes: int) -> None:
        self._root = root
        self._tops = tops
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._closed: Dict[str, int] = {}
        self._names: Dict[int, str] = {}
        self.counts = {"files": 0, "folders": 0, "links": 0, "bytes": 0, "disk_bytes": 0, "skipped": 0}

    def measure(self) -> int:
        """What tells this moment from others. Refuses what is too much."""
        size = mark = 0
        skipped = self.counts["skipped"]
        for found in self._walk():
            mark = _add_to_mark(mark, found, self._closed)
            if found.kind == stat.S_IFREG:
                size += found.status.st_size
                self._check_size(size)
        self.counts["skipped"] = skipped
        return mark

    def write(self, archive: SnapshotTar) -> None:
        """Send it."""
        for found in self._walk():
            try:
                self._add(archive, found)
            except BrokenPipeError:
                raise
            except OSError:
                self.counts["skipped"] += 1
        archive.finish()

    def close(self) -> None:
        """Leave all as it was."""
        for path, mode in reversed(list(self._closed.items())):
            try:
                os.chmod(path, mode)
            except OSError:
                # Code has taken it away.
                continue

    def _walk(self) -> Iterator[Found]:
        """Everything, each by its path without the first slash."""
        left = self._most_entries
        for top in self._tops:
            path = os.path.join(self._root, top)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            yield self._as_it_was(Found(top, path, status))
            walk = _OwnWalk(path, left, self._closed)
            for found in walk:
                left -= 1
                yield self._as_it_was(Found("{}/{}".format(top, found.name), found.path, found.status))
            self.counts["skipped"] += walk.skipped

    def _as_it_was(self, found: Found) -> Found:
        mode = self._closed.get(found.path)
        if mode is None:
            return found
        fields = [found.kind | mode, *found.status[1:]]
        extra = {"st_mtime_ns": found.status.st_mtime_ns, "st_blocks": found.status.st_blocks, "st_ctime_ns": 0}
        return Found(found.name, found.path, os.stat_result(fields, extra))

    def _add(self, archive: SnapshotTar, found: Found) -> None:
        if len(os.fsencode(found.name)) > _LONGEST_PATH:
            self.counts["skipped"] += 1
        elif found.kind == stat.S_IFDIR:
            archive.folder(found)
            self.counts["folders"] += 1
        elif found.kind == stat.S_IFLNK:
            archive.link(found, os.readlink(found.path))
            self.counts["links"] += 1
        elif found.kind == stat.S_IFIFO:
            archive.fifo(found)
            self.counts["files"] += 1
        elif found.kind == stat.S_IFREG:
            self._add_file(archive, found)
        else:
            self.counts["skipped"] += 1

    def _add_file(self, archive: SnapshotTar, found: Found) -> None:
        number = found.status.st_ino
        if found.status.st_nlink > 1 and number in self._names:
            archive.other_name(found, self._names[number])
            self.counts["links"] += 1
            return
        content = _open(found)
        try:
            self._check_size(self.counts["bytes"] + content.size)
            self.counts["bytes"] += content.size
            self.counts["disk_bytes"] += 512 * found.status.st_blocks
            archive.file(found, content)
        finally:
            content.close()
        self.counts["files"] += 1
        if found.status.st_nlink > 1:
            self._names[number] = found.name

    def _check_size(self, size: int) -> None:
        if size > self._most_bytes:
            raise OperationRefused("SNAPSHOT_TOO_LARGE", "its files are larger than {} bytes".format(self._most_bytes))


def _open(found: Found) -> Content:
    """A file's content, also of one that its owner has closed. Raises ``OSError``."""
    try:
        return Content(found)
    except PermissionError:
        mode = stat.S_IMODE(found.status.st_mode)
        os.chmod(found.path, mode | 0o400)
        try:
            return Content(found)
        finally:
            os.chmod(found.path, mode)


def _add_to_mark(mark: int, found: Found, closed: Dict[str, int]) -> int:
    status = found.status
    changed_ns = 0 if found.path in closed or not status.st_mode & 0o400 else status.st_ctime_ns
    told = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, changed_ns)
    return zlib.crc32(os.fsencode(found.name) + repr(told).encode(), mark)


def _snapshot(
    worker: Worker, tops: List[str], most_entries: int, most_bytes: int, is_alone: bool, root: str = "/"
) -> None:
    """Answer that it begins, send all that is in these folders in pieces, and after an empty one answer what it was."""
    snapshot = Snapshot(root, tops, most_entries, most_bytes)
    try:
        # What is too much is refused on the way, where nothing can change: all waits until this is done.
        before = 0 if is_alone else snapshot.measure()
        worker.answer({})
        out = Out(worker)
        try:
            snapshot.write(SnapshotTar(out.write))
            out.flush()
            changed = not is_alone and snapshot.measure() != before
            ended: Dict[str, Any] = {**snapshot.counts, "changed": changed}
        except OperationRefused as refusal:
            ended = {"error": refusal.code, "message": refusal.message, "path": refusal.path}
    finally:
        snapshot.close()
    worker.send(b"")
    worker.answer(ended)


OPERATIONS: Dict[str, Callable[..., None]] = {"snapshot": _snapshot}
