"""Writes a tar archive while it is read: in the pax format, with records only for what does not fit a header.

Source: POSIX.1-2017, pax Interchange Format.
"""

import os
import stat
from typing import Callable, Dict

from sandgate_agent.file_worker import Worker
from sandgate_agent.walking import PIECE_BYTES, Content, Found

BLOCK = 512
_RECORD = 20 * BLOCK
_LARGEST_OCTAL = 8**11
_LATEST_S = 2**32

Write = Callable[[bytes], None]


class Out:
    """Gathers what is written into pieces of a good size."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._waiting = bytearray()

    def write(self, data: bytes) -> None:
        """Send it, sooner or later."""
        self._waiting += data
        if len(self._waiting) >= PIECE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if self._waiting:
            self._worker.send(bytes(self._waiting))
            self._waiting.clear()


class TarWriter:
    """One archive. ``write`` is given the next part of it."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._length = 0

    def folder(self, found: Found) -> None:
        """A folder."""
        self._put(self._header(found, b"5", found.name + "/", 0))

    def link(self, found: Found, leads_to: str) -> None:
        """A symbolic link."""
        self._put(self._header(found, b"2", found.name, 0, leads_to))

    def file(self, found: Found, content: Content) -> None:
        """A file."""
        self._put(self._header(found, b"0", found.name, content.size))
        for piece in content.pieces():
            self._put(piece)
        self._put(bytes(-content.size % BLOCK))

    def finish(self) -> None:
        """The mark of the end, as long as makes a whole record."""
        self._put(bytes(2 * BLOCK))
        self._put(bytes(-self._length % _RECORD))

    def _put(self, data: bytes) -> None:
        self._length += len(data)
        self._write(data)

    def _tell(self, found: Found) -> Dict[str, bytes]:  # noqa: ARG002 - for others to say more
        """What else is told of an entry."""
        return {}

    def _header(self, found: Found, kind: bytes, name: str, size: int, leads_to: str = "") -> bytes:
        raw, target = os.fsencode(name), os.fsencode(leads_to)
        records = self._tell(found)
        if len(raw) > 100 or not raw.isascii():
            records["path"] = raw
        if len(target) > 100 or not target.isascii():
            records["linkpath"] = target
        if size >= _LARGEST_OCTAL:
            records["size"] = b"%d" % size
        modified_at = max(0, min(found.status.st_mtime_ns // 10**9, _LATEST_S))
        header = _pack_header(raw, found.status.st_mode, size, modified_at, kind, target)
        return _pack_records(records, modified_at) + header if records else header


def _pack_header(name: bytes, mode: int, size: int, modified_at: int, kind: bytes, target: bytes) -> bytes:
    fields = (
        name[:100].ljust(100, b"\0"),
        b"%07o\0" % stat.S_IMODE(mode),
        b"0000000\0" * 2,
        b"%011o\0" % (size if size < _LARGEST_OCTAL else 0),
        b"%011o\0" % modified_at,
        b" " * 8,
        kind,
        target[:100].ljust(100, b"\0"),
        b"ustar\x0000",
    )
    header = b"".join(fields).ljust(BLOCK, b"\0")
    return b"%b%06o\0 %b" % (header[:148], sum(header), header[156:])


def _pack_records(records: Dict[str, bytes], modified_at: int) -> bytes:
    """What does not fit the header behind it."""
    try:
        for value in records.values():
            value.decode("utf-8")
        lines = []
    except UnicodeDecodeError:
        lines = [_pack_line(b"hdrcharset", b"BINARY")]
    lines += [_pack_line(key.encode(), value) for key, value in records.items()]
    body = b"".join(lines)
    header = _pack_header(b"././@PaxHeader", 0o644, len(body), modified_at, b"x", b"")
    return header + body + bytes(-len(body) % BLOCK)


def _pack_line(key: bytes, value: bytes) -> bytes:
    """``length key=value``, where the length counts itself, too."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d%b" % (length, rest)
