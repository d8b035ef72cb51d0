"""Takes files out of a sandbox: what is run inside for it, and how its answer is read, which is hostile.

No path from inside is ever a path of the host, and no length is believed before so many bytes have come.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from unicodedata import category

_HEAD = struct.Struct("!cI")
_LONGEST_PATH_BYTES = 1024
_LONGEST_NAME_BYTES = 255
_LONGEST_PIECE_BYTES = 1 << 20
_LONGEST_PROBLEM_BYTES = 4096
# Neither a terminal nor a reader may be led astray by a name: control characters and line ends, and what turns the
# direction of text. Source: Unicode Standard Annex 9, table 4.
_REFUSED_CATEGORIES = frozenset({"Cc", "Zl", "Zp"})
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class ArchiveError(Exception):
    """The archive, or what was to be in it, cannot be taken; its text is for the user."""


@dataclass(frozen=True, slots=True)
class ArchiveCaps:
    """The most that an archive may hold."""

    files: int
    file_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class FileBegins:
    """From here on pieces belong to this file."""

    path: str


@cache
def _source() -> str:
    return files("sandgate_agent").joinpath("artifact_reader.py").read_text(encoding="utf-8")


def archive_code(folder: str, caps: ArchiveCaps) -> str:
    """Code that writes an archive of ``folder``, one where temporary files are, to stdout."""
    return f"{_source()}\n\nwrite_archive({folder!r}, {caps.files}, {caps.file_bytes})\n"


class ArchiveParser:
    """Reads an archive as it comes, in pieces of any size; see ``sandgate_agent/artifact_reader.py`` for its form."""

    def __init__(self, caps: ArchiveCaps) -> None:
        self._caps = caps
        self._buffer = bytearray()
        self._piece_left = 0
        self._paths: set[str] = set()
        self._file_bytes = 0
        self._total_bytes = 0
        self._ended = False

    def feed(self, data: bytes) -> Iterator[FileBegins | bytes]:
        """What the next bytes hold. Raises ``ArchiveError``."""
        self._buffer += data
        while True:
            if self._piece_left and self._buffer:
                piece = bytes(self._buffer[: self._piece_left])
                del self._buffer[: self._piece_left]
                self._piece_left -= len(piece)
                yield piece
            if self._piece_left or len(self._buffer) < _HEAD.size:
                return
            kind, length = _HEAD.unpack_from(self._buffer)
            self._check_head(kind, length)
            if kind == b"D":
                del self._buffer[: _HEAD.size]
                self._begin_piece(length)
            elif kind == b"Z":
                del self._buffer[: _HEAD.size]
                self._end(length)
            elif len(self._buffer) < _HEAD.size + length:
                return
            else:
                text = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
                del self._buffer[: _HEAD.size + length]
                if kind == b"E":
                    raise ArchiveError(_printable(text.decode("utf-8", "replace")))
                yield self._begin_file(text)

    def finish(self) -> None:
        """Nothing more comes. Raises ``ArchiveError`` unless the archive is whole."""
        if not self._ended or self._buffer:
            raise ArchiveError("they could not be read to their end")

    def _check_head(self, kind: bytes, length: int) -> None:
        longest = {b"F": _LONGEST_PATH_BYTES, b"D": _LONGEST_PIECE_BYTES, b"E": _LONGEST_PROBLEM_BYTES, b"Z": 1 << 32}
        if self._ended or kind not in longest:
            raise ArchiveError("they did not come in the form that was agreed")
        if length > longest[kind]:
            problem = f"a path is longer than {_LONGEST_PATH_BYTES} bytes" if kind == b"F" else "a record is too long"
            raise ArchiveError(problem)

    def _begin_file(self, raw: bytes) -> FileBegins:
        path = parse_path(raw)
        if path in self._paths:
            raise ArchiveError(f"{path!r} came twice")
        self._paths.add(path)
        if len(self._paths) > self._caps.files:
            raise ArchiveError(f"there are more than {self._caps.files} files")
        self._file_bytes = 0
        return FileBegins(path)

    def _begin_piece(self, length: int) -> None:
        if not self._paths:
            raise ArchiveError("they did not come in the form that was agreed")
        self._file_bytes += length
        self._total_bytes += length
        if self._file_bytes > self._caps.file_bytes:
            raise ArchiveError(f"a file is larger than {self._caps.file_bytes} bytes")
        if self._total_bytes > self._caps.total_bytes:
            raise ArchiveError(f"the files are larger than {self._caps.total_bytes} bytes together")
        self._piece_left = length

    def _end(self, count: int) -> None:
        if count != len(self._paths):
            raise ArchiveError("they did not come in the form that was agreed")
        self._ended = True


def parse_path(raw: bytes) -> str:
    """A relative path whose parts are ordinary names. Raises ``ArchiveError``."""
    try:
        path = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ArchiveError(f"the name {raw[:200]!r} is not UTF-8") from None
    shown = _printable(path[:200])
    for part in path.split("/"):
        if part in ("", ".", "..") or len(part.encode()) > _LONGEST_NAME_BYTES:
            raise ArchiveError(f"{shown!r} is no path of a file within the folder")
    if any(category(sign) in _REFUSED_CATEGORIES or sign in _TURNING for sign in path):
        raise ArchiveError(f"{shown!r} has a control character in its name")
    return path


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
