"""Writes a zip archive that is never gone back in.

Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.5; Info-ZIP's extended timestamp ("UT").
"""

import os
import struct
import time
import zlib
from typing import Callable, Tuple

from sandgate_agent.walking import PIECE_BYTES, Content, Found

LEVEL = 6
_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_END = struct.Struct("<4s4H2LH")
_NEEDS = 45
_UNIX = 3 << 8
_STORED, _DEFLATED = 0, 8
_COMES_LATER, _FLAGS = 0x8, 0x800
_FULL = 0xFFFFFFFF
_IS_FOLDER = 0x10


class ZipWriter:
    """A zip archive that is never gone back in; its table of contents is kept until the end."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._offset = 0
        self._table = bytearray()
        self._count = 0

    def folder(self, found: Found) -> None:
        """A folder."""
        self._add_whole(found, found.name + "/", b"")

    def link(self, found: Found, leads_to: str) -> None:
        """A symbolic link."""
        self._add_whole(found, found.name, os.fsencode(leads_to))

    def file(self, found: Found, content: Content) -> None:
        """A file, packed as it comes: its lengths are told behind it, in 8 bytes each."""
        raw, at = found.name.encode("utf-8"), self._offset
        extra = struct.pack("<2H2Q", 1, 16, 0, 0) + _stamp(found)
        lengths = _FULL, _FULL, len(raw), len(extra)
        self._put(_LOCAL.pack(b"PK\3\4", _NEEDS, _FLAGS | _COMES_LATER, _DEFLATED, *_dos_time(found), 0, *lengths))
        self._put(raw + extra)
        begin = self._offset
        size, crc = self._put_content(content)
        packed = self._offset - begin
        self._put(struct.pack("<4sL2Q", b"PK\7\x08", crc, packed, size))
        self._list(found, raw, _FLAGS | _COMES_LATER, _DEFLATED, (crc, packed, size, at))

    def finish(self) -> None:
        """The table of contents, with the end that large archives need and others may have."""
        at, length, count = self._offset, len(self._table), self._count
        for start in range(0, length, PIECE_BYTES):
            self._put(bytes(self._table[start : start + PIECE_BYTES]))
        end_at = self._offset
        self._put(_END64.pack(b"PK\6\6", _END64.size - 12, _UNIX | _NEEDS, _NEEDS, 0, 0, count, count, length, at))
        self._put(_LOCATOR.pack(b"PK\6\7", 0, end_at, 1))
        few = min(count, 0xFFFF)
        self._put(_END.pack(b"PK\5\6", 0, 0, few, few, min(length, _FULL), min(at, _FULL), 0))

    def _add_whole(self, found: Found, name: str, data: bytes) -> None:
        """Something small, as it is."""
        raw, at, crc, extra = name.encode("utf-8"), self._offset, zlib.crc32(data), _stamp(found)
        lengths = len(data), len(data), len(raw), len(extra)
        self._put(_LOCAL.pack(b"PK\3\4", _NEEDS, _FLAGS, _STORED, *_dos_time(found), crc, *lengths))
        self._put(raw + extra + data)
        self._list(found, raw, _FLAGS, _STORED, (crc, len(data), len(data), at))

    def _list(self, found: Found, raw: bytes, flags: int, method: int, facts: Tuple[int, int, int, int]) -> None:
        """Add it to the table of contents."""
        crc, packed, size, at = facts
        extra = struct.pack("<2H3Q", 1, 24, size, packed, at) + _stamp(found)
        attributes = (found.status.st_mode & 0xFFFF) << 16 | (_IS_FOLDER if raw.endswith(b"/") else 0)
        self._table += _ENTRY.pack(
            b"PK\1\2", _UNIX | _NEEDS, _NEEDS, flags, method, *_dos_time(found), crc, _FULL, _FULL,
            len(raw), len(extra), 0, 0, 0, attributes, _FULL,
        )  # fmt: skip
        self._table += raw + extra
        self._count += 1

    def _put_content(self, content: Content) -> Tuple[int, int]:
        """How many bytes there were, and their checksum."""
        engine = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
        size = crc = 0
        for piece in content.pieces():
            size += len(piece)
            crc = zlib.crc32(piece, crc)
            self._put(engine.compress(piece))
        self._put(engine.flush())
        return size, crc

    def _put(self, data: bytes) -> None:
        self._offset += len(data)
        self._write(data)


def _stamp(found: Found) -> bytes:
    """When it was changed, in the form that knows seconds and UTC."""
    return struct.pack("<2HBi", 0x5455, 5, 1, max(0, min(int(found.status.st_mtime), 2**31 - 1)))


def _dos_time(found: Found) -> Tuple[int, int]:
    year, month, day, hour, minute, second = time.gmtime(max(0, min(int(found.status.st_mtime), 2**32)))[:6]
    if not 1980 <= year < 2108:
        return 0, 1 << 5 | 1
    return hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day
