"""Reads a tar archive as it comes, and lays it out.

Source: POSIX.1-2017, pax Interchange Format; GNU tar's manual, "Basic Tar Format" (long names, numbers in base 256).
"""

import os
from typing import Dict, Iterator

from sandgate_agent.file_worker import OperationRefused
from sandgate_agent.laying import INVALID, NANOSECONDS, TOO_LARGE, Caps, Layout, refuse

_BLOCK = 512
# Of a record that describes the entry behind it.
_LONGEST_RECORD = 1 << 20
_MOST_RECORD_BYTES = 256 << 20
_REGULAR = (b"0", b"\0", b"7")
_KINDS = {b"3": "a device", b"4": "a device", b"6": "a named pipe"}
_SPARSE = {b"S": "a sparse file", b"M": "a part of a file"}


class Stream:
    """Bytes that come in pieces, read in the lengths that a format asks for."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""
        self._offset = 0

    def take(self, length: int) -> bytes:
        """So many bytes; fewer only at the end."""
        return b"".join(self.parts(length))

    def parts(self, length: int) -> Iterator[bytes]:
        """So many bytes in pieces; fewer only at the end."""
        while length > 0:
            left = len(self._piece) - self._offset
            if not left:
                self._piece, self._offset = next(self._pieces, b""), 0
                if not self._piece:
                    return
                continue
            size = min(left, length)
            whole = size == len(self._piece)
            part = self._piece if whole else self._piece[self._offset : self._offset + size]
            self._offset += size
            length -= size
            yield part


class TarReader:
    """A tar archive. ``_told`` is what records have said of the entry that comes next."""

    def __init__(self, stream: Stream, unpacker: Layout, caps: Caps) -> None:
        self._stream = stream
        self._unpacker = unpacker
        self._most_records = 4 * caps.entries + 16
        self._record_bytes = 0
        self._told: Dict[str, bytes] = {}

    def lay_out(self) -> None:
        """All of it, to the mark of its end. Raises ``OperationRefused``, ``OSError``."""
        for _number in range(self._most_records):
            header = self._stream.take(_BLOCK)
            if header.count(b"\0") == _BLOCK:
                return
            if len(header) < _BLOCK:
                raise OperationRefused(INVALID, "it ends too soon, without the mark of its end")
            self._lay_out_record(header)
        raise OperationRefused(TOO_LARGE, "there are more than {} records".format(self._most_records))

    def _lay_out_record(self, header: bytes) -> None:
        if not _is_sound(header):
            raise OperationRefused(INVALID, "a header has a checksum that is not its own")
        kind, size = header[156:157], _number(header[124:136])
        if kind in (b"x", b"g", b"L", b"K"):
            self._tell(kind, self._take_record(size))
            return
        told, self._told = self._told, {}
        name = os.fsdecode(told.get("path") or _name(header))
        if size < 0:
            raise refuse(name, "says that it is less than nothing")
        if kind in _SPARSE or any(key.startswith("GNU.sparse") for key in told):
            raise refuse(name, "is {}, which is not unpacked".format(_SPARSE.get(kind, "a sparse file")))
        size = _whole(told, "size", size)
        self._lay_out_entry(kind, name, size, header, told)

    def _lay_out_entry(self, kind: bytes, name: str, size: int, header: bytes, told: Dict[str, bytes]) -> None:
        mode, modified_ns = _number(header[100:108]) & 0o7777, _time(told, _number(header[136:148]))
        leads_to = os.fsdecode(told.get("linkpath") or header[157:257].split(b"\0")[0])
        if kind == b"5" or (kind in _REGULAR and name.endswith("/")):
            self._unpacker.folder(name, mode, modified_ns)
        elif kind in _REGULAR:
            self._unpacker.file(name, mode, modified_ns, size, self._content(name, size))
            self._skip_padding(size)
        elif kind == b"2":
            self._unpacker.link(name, leads_to, modified_ns)
        elif kind == b"1":
            self._unpacker.hard_link(name, leads_to)
        else:
            self._lay_out_other(kind, name, mode, modified_ns)

    def _lay_out_other(self, kind: bytes, name: str, mode: int, modified_ns: int) -> None:  # noqa: ARG002 - see below
        """What archives of clients do not have. Raises ``OperationRefused``."""
        raise refuse(name, "is {}, which is not unpacked".format(_KINDS.get(kind, "of a kind that is not known")))

    def _content(self, name: str, size: int) -> Iterator[bytes]:
        left = size
        for part in self._stream.parts(size):
            left -= len(part)
            yield part
        if left:
            raise refuse(name, "ends too soon")

    def _skip_padding(self, size: int) -> None:
        self._stream.take(-size % _BLOCK)

    def _take_record(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_RECORD:
            raise OperationRefused(INVALID, "a record has {} bytes; {} is the most".format(size, _LONGEST_RECORD))
        self._record_bytes += size
        if self._record_bytes > _MOST_RECORD_BYTES:
            raise OperationRefused(TOO_LARGE, "there are more than {} bytes of records".format(_MOST_RECORD_BYTES))
        record = self._stream.take(size)
        self._skip_padding(size)
        return record

    def _tell(self, kind: bytes, record: bytes) -> None:
        if kind == b"L":
            self._told["path"] = record.split(b"\0")[0]
        elif kind == b"K":
            self._told["linkpath"] = record.split(b"\0")[0]
        elif kind == b"x":
            self._told.update(_parse_pax(record))


def _parse_pax(record: bytes) -> Dict[str, bytes]:
    """What a record says, by key. Raises ``OperationRefused``."""
    told = {}
    while record.strip(b"\0"):
        length, _space, _rest = record.partition(b" ")
        end = int(length) if length.isdigit() and len(length) < 9 else 0
        key, equals, value = record[len(length) + 1 : end].partition(b"=")
        if not equals or value[-1:] != b"\n":
            raise OperationRefused(INVALID, "a record cannot be read")
        told[key.decode("latin-1")] = value[:-1]
        record = record[end:]
    return told


def _is_sound(header: bytes) -> bool:
    """Whether the checksum is right; old archives count signed bytes."""
    rest = header[:148] + b" " * 8 + header[156:]
    found = _number(header[148:156])
    return found == sum(rest) or found == sum(rest) - 256 * sum(byte > 127 for byte in rest)


def _number(field: bytes) -> int:
    """A number in octal, or in base 256. Raises ``OperationRefused``."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = len(field) * 8 - 1
        return value - (1 << bits + 1) if field[0] & 0x40 else value - (1 << bits)
    text = field.split(b"\0")[0].strip()
    try:
        return int(text or b"0", 8)
    except ValueError:
        raise OperationRefused(
            INVALID, "a header has {!r} in the place of a number".format(text.decode("latin-1"))
        ) from None


def _whole(told: Dict[str, bytes], key: str, otherwise: int) -> int:
    text = told.get(key)
    if text is None:
        return otherwise
    if not text.isdigit() or len(text) > 20:
        raise OperationRefused(INVALID, "a record has no number as {!r}".format(key))
    return int(text)


def _time(told: Dict[str, bytes], otherwise: int) -> int:
    """In nanoseconds, for which a float of today's seconds has no room."""
    if "mtime" not in told:
        return otherwise * NANOSECONDS
    text = told["mtime"][:40]
    whole, _point, rest = text.partition(b".")
    if whole.isdigit() and (rest.isdigit() or not rest):
        return int(whole) * NANOSECONDS + int(rest[:9].ljust(9, b"0"))
    try:
        # Before 1970, or written otherwise.
        return int(float(text) * NANOSECONDS)
    except (ValueError, OverflowError):
        raise OperationRefused(INVALID, "a record has no time as 'mtime'") from None


def _name(header: bytes) -> bytes:
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def untar(pieces: Iterator[bytes], unpacker: Layout, caps: Caps) -> None:
    """Lay a tar archive out."""
    TarReader(Stream(pieces), unpacker, caps).lay_out()
