"""Reads a zip archive, which is laid down as a file first because its table of contents comes last.

Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.5; Info-ZIP's extended timestamp ("UT").
"""

import os
import stat
import struct
import zlib
from typing import Iterator, NamedTuple, Optional, Tuple

from sandgate_agent.file_changes import write_all
from sandgate_agent.file_worker import NewFile, OperationRefused
from sandgate_agent.laying import INVALID, NANOSECONDS, TOO_LARGE, Caps, refuse
from sandgate_agent.unpacking import Unpacker

_PIECE_BYTES = 256 * 1024
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_LONGEST_COMMENT = 65_535
_UNIX = 3
_STORED, _DEFLATED = 0, 8
_IS_ENCRYPTED, _IS_UTF8 = 1, 0x800


class _Entry(NamedTuple):
    """What the table of contents says of an entry."""

    name: str
    method: int
    crc: int
    packed_bytes: int
    size: int
    offset: int
    mode: Optional[int]
    modified_ns: int


class _Zip:
    """A zip archive in a file."""

    def __init__(self, descriptor: int, unpacker: Unpacker, caps: Caps) -> None:
        self._descriptor = descriptor
        self._unpacker = unpacker
        self._caps = caps
        self._size = os.fstat(descriptor).st_size

    def lay_out(self) -> None:
        """All of it. Raises ``OperationRefused``, ``OSError``."""
        count, offset = self._find_table()
        if count > self._caps.entries:
            raise OperationRefused(TOO_LARGE, "there are more than {} entries".format(self._caps.entries))
        table, packed = offset, 0
        for _number in range(count):
            entry, offset = self._read_entry(offset)
            # Entries that share their bytes are how a small archive becomes a very large one.
            packed += entry.packed_bytes + _LOCAL.size
            if packed > table:
                raise refuse(entry.name, "shares its bytes with others")
            self._lay_out_entry(entry)

    def _find_table(self) -> Tuple[int, int]:
        """How many entries the table of contents has, and where it is."""
        tail_at = max(0, self._size - _END.size - _LONGEST_COMMENT)
        tail = self._read(tail_at, self._size - tail_at)
        at = tail.rfind(b"PK\5\6")
        if at < 0 or len(tail) - at < _END.size:
            raise OperationRefused(INVALID, "it is no zip file, or one that ends too soon")
        count, _size, offset = _END.unpack_from(tail, at)[4:7]
        if count == 0xFFFF or offset == 0xFFFFFFFF:
            locator_at = tail_at + at - _LOCATOR.size
            if locator_at >= 0:
                return self._find_large_table(locator_at, count, offset)
        return count, offset

    def _find_large_table(self, locator_at: int, count: int, offset: int) -> Tuple[int, int]:
        mark, _disk, end_at, _disks = _LOCATOR.unpack(self._read(locator_at, _LOCATOR.size))
        if mark != b"PK\6\7":
            return count, offset
        end = _END64.unpack(self._read(end_at, _END64.size))
        if end[0] != b"PK\6\6":
            raise OperationRefused(INVALID, "the end of it cannot be read")
        return end[7], end[9]

    def _read_entry(self, offset: int) -> Tuple[_Entry, int]:
        """An entry, and where the next one is."""
        fields = _ENTRY.unpack(self._read(offset, _ENTRY.size))
        mark, made_by, _needs, flags, method, time, date, crc, packed_bytes, size = fields[:10]
        name_bytes, extra_bytes, comment_bytes, _disk, _inner, attributes, local = fields[10:]
        if mark != b"PK\1\2":
            raise OperationRefused(INVALID, "the table of contents cannot be read")
        rest = self._read(offset + _ENTRY.size, name_bytes + extra_bytes)
        name, extra = _decode(rest[:name_bytes], flags), rest[name_bytes:]
        sizes, modified_ns = _read_extra(name, extra, [size, packed_bytes, local])
        mode = attributes >> 16 if made_by >> 8 == _UNIX and attributes >> 16 else None
        if flags & _IS_ENCRYPTED:
            raise refuse(name, "is encrypted")
        if method not in (_STORED, _DEFLATED):
            raise refuse(name, "is packed by method {}, which is not known".format(method))
        at = _dos_time(date, time) * NANOSECONDS if modified_ns is None else modified_ns
        entry = _Entry(name, method, crc, sizes[1], sizes[0], sizes[2], mode, at)
        return entry, offset + _ENTRY.size + name_bytes + extra_bytes + comment_bytes

    def _lay_out_entry(self, entry: _Entry) -> None:
        kind = stat.S_IFMT(entry.mode or 0)
        if entry.name.endswith("/") or kind == stat.S_IFDIR:
            self._unpacker.folder(entry.name, entry.mode, entry.modified_ns)
        elif kind == stat.S_IFLNK:
            if entry.size > 4095:
                raise refuse(entry.name, "is a link that leads nowhere")
            leads_to = os.fsdecode(b"".join(self._content(entry)))
            self._unpacker.link(entry.name, leads_to, entry.modified_ns)
        elif kind in (0, stat.S_IFREG):
            self._unpacker.file(entry.name, entry.mode, entry.modified_ns, entry.size, self._content(entry))
        else:
            raise refuse(entry.name, "is no file, folder or link")

    def _content(self, entry: _Entry) -> Iterator[bytes]:
        """Unpacked, and as it was packed. Raises ``OperationRefused``."""
        mark, *_fields, name_bytes, extra_bytes = _LOCAL.unpack(self._read(entry.offset, _LOCAL.size))
        if mark != b"PK\3\4":
            raise refuse(entry.name, "is not where the table of contents says")
        begin = entry.offset + _LOCAL.size + name_bytes + extra_bytes
        size = crc = 0
        for piece in _unpacked(entry, self._pieces(begin, entry.packed_bytes)):
            size += len(piece)
            if size > entry.size:
                break
            crc = zlib.crc32(piece, crc)
            yield piece
        if size != entry.size or crc != entry.crc:
            raise refuse(entry.name, "is not what its length and its checksum say")

    def _pieces(self, offset: int, length: int) -> Iterator[bytes]:
        while length > 0:
            piece = os.pread(self._descriptor, min(length, _PIECE_BYTES), offset)
            if not piece:
                return
            offset += len(piece)
            length -= len(piece)
            yield piece

    def _read(self, offset: int, length: int) -> bytes:
        """Exactly so many bytes. Raises ``OperationRefused``."""
        data = os.pread(self._descriptor, length, offset) if 0 <= offset <= self._size else b""
        if len(data) < length:
            raise OperationRefused(INVALID, "it is no zip file, or one that ends too soon")
        return data


def _unpacked(entry: _Entry, pieces: Iterator[bytes]) -> Iterator[bytes]:
    if entry.method == _STORED:
        yield from pieces
        return
    engine = zlib.decompressobj(-15)
    try:
        for piece in pieces:
            while piece and not engine.eof:
                yield engine.decompress(piece, _PIECE_BYTES)
                piece = engine.unconsumed_tail
        while not engine.eof:
            part = engine.decompress(b"", _PIECE_BYTES)
            if not part:
                return
            yield part
    except zlib.error as error:
        raise refuse(entry.name, "cannot be unpacked: {}".format(error)) from None


def _decode(raw: bytes, flags: int) -> str:
    """A name. Those that do not say that they are UTF-8 often are all the same. Raises ``OperationRefused``."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        if flags & _IS_UTF8:
            raise refuse(raw.decode("utf-8", "replace"), "has a name that is not UTF-8") from None
        return raw.decode("cp437")


def _read_extra(name: str, extra: bytes, sizes: "list[int]") -> "Tuple[list[int], Optional[int]]":
    """The sizes, of which those that did not fit are here, and the time of change."""
    modified_ns = None
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        part = extra[at + 4 : at + 4 + length]
        if kind == 1:
            sizes = _fill(name, sizes, part)
        elif kind == 0x5455 and len(part) >= 5 and part[0] & 1:
            modified_ns = struct.unpack_from("<i", part, 1)[0] * NANOSECONDS
        at += 4 + length
    return sizes, modified_ns


def _fill(name: str, sizes: "list[int]", part: bytes) -> "list[int]":
    filled = []
    for size in sizes:
        if size == 0xFFFFFFFF:
            if len(part) < 8:
                raise refuse(name, "has no length")
            size, part = int.from_bytes(part[:8], "little"), part[8:]
        filled.append(size)
    return filled


def _dos_time(date: int, time: int) -> int:
    seconds = (time >> 11) * 3600 + (time >> 5 & 63) * 60 + 2 * (time & 31)
    return _days(1980 + (date >> 9), date >> 5 & 15, date & 31) * 86_400 + seconds


def _days(year: int, month: int, day: int) -> int:
    """From 1970 on; years begin in March, so that leap days end them. Modules that know calendars take long to load."""
    year, month = (year, month - 3) if month > 2 else (year - 1, month + 9)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 719_469


def unzip(pieces: Iterator[bytes], unpacker: Unpacker, caps: Caps) -> None:
    """Lay a zip archive out."""
    laid_down = NewFile(unpacker.staging)
    try:
        for piece in pieces:
            write_all(laid_down.descriptor, piece)
        _Zip(laid_down.descriptor, unpacker, caps).lay_out()
    finally:
        laid_down.drop()
