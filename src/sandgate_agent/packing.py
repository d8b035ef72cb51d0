"""Writes a folder as an archive while it is read: tar, tar.gz or zip.

What is no file, folder or link is left out and counted, and so is what cannot be read. Each file is as long as it was
when it was opened, whatever becomes of it meanwhile. Owners are not told.
"""

import os
import stat
import zlib
from typing import Any, Callable, Dict, Sequence

from sandgate_agent.file_worker import OperationRefused, Worker
from sandgate_agent.tarring import Out, TarWriter
from sandgate_agent.walking import Content, Found, Walk
from sandgate_agent.zipping import LEVEL, ZipWriter


class _Packing:
    """One archive on its way. Of the folders ``closed``, by their names in it, nothing but themselves is in it."""

    def __init__(self, top: str, form: str, most_entries: int, most_bytes: int, closed: Sequence[str]) -> None:
        self._top = top
        self._form = form
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._closed = frozenset(closed)
        self._bytes = 0
        self._entries = 0
        self._skipped = 0

    def measure(self) -> Dict[str, int]:
        """How much there is at this moment, so that too much is refused before anything is sent."""
        walk = self._walk()
        entries = size = odd = 0
        for found in walk:
            entries += 1
            odd += not self._has_name(found)
            if found.kind == stat.S_IFREG:
                size += found.status.st_size
                odd += not os.access(found.path, os.R_OK, follow_symlinks=False)
            self._check_size(size)
        skipped = walk.skipped + odd
        return {"entries": entries - odd, "bytes": size, "skipped": skipped}

    def write(self, out: Out) -> Dict[str, int]:
        """Send it; what there was."""
        engine = zlib.compressobj(LEVEL, zlib.DEFLATED, 31) if self._form == "tar.gz" else None
        write = out.write if engine is None else lambda data: out.write(engine.compress(data))
        archive: Any = ZipWriter(write) if self._form == "zip" else TarWriter(write)
        walk = self._walk()
        for found in walk:
            self._add(archive, found)
        archive.finish()
        if engine is not None:
            out.write(engine.flush())
        out.flush()
        return {"entries": self._entries, "bytes": self._bytes, "skipped": self._skipped + walk.skipped}

    def _walk(self) -> Walk:
        return Walk(self._top, self._most_entries, is_wanted=lambda folder: folder not in self._closed)

    def _add(self, archive: Any, found: Found) -> None:
        if not self._has_name(found):
            self._skipped += 1
            return
        try:
            if found.kind == stat.S_IFDIR:
                archive.folder(found)
            elif found.kind == stat.S_IFLNK:
                archive.link(found, os.readlink(found.path))
            else:
                self._add_file(archive, found)
        except BrokenPipeError:
            raise
        except OSError:
            self._skipped += 1
        else:
            self._entries += 1

    def _add_file(self, archive: Any, found: Found) -> None:
        content = Content(found)
        try:
            self._check_size(self._bytes + content.size)
            self._bytes += content.size
            archive.file(found, content)
        finally:
            content.close()

    def _has_name(self, found: Found) -> bool:
        """Whether the archive can hold its name: a zip has text only."""
        if self._form != "zip":
            return True
        try:
            found.name.encode("utf-8")
        except UnicodeEncodeError:
            return False
        return True

    def _check_size(self, size: int) -> None:
        if size > self._most_bytes:
            message = "what is in it is larger than {} bytes".format(self._most_bytes)
            raise OperationRefused("ARCHIVE_TOO_LARGE", message, self._top)


def _pack(worker: Worker, path: str, form: str, most_entries: int, most_bytes: int, closed: Sequence[str] = ()) -> None:
    """Answer what is to come, send it in pieces, and after an empty one answer what it was."""
    packing = _Packing(path, form, most_entries, most_bytes, closed)
    worker.answer(packing.measure())
    out = Out(worker)
    try:
        ended: Dict[str, Any] = dict(packing.write(out))
    except OperationRefused as refusal:
        ended = {"error": refusal.code, "message": refusal.message, "path": refusal.path}
    worker.send(b"")
    worker.answer(ended)


OPERATIONS: Dict[str, Callable[..., None]] = {"pack": _pack}
