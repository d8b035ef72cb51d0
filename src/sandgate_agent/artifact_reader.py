"""Writes the files of a folder to stdout as one archive: an execution of its own, after the one that left them.

The host sends the text of this file into the sandbox with a call of :func:`write_archive` behind it, and takes nothing
of what comes back on trust.

An archive is records of a kind, a length (4 bytes, big-endian) and so many bytes: ``F`` the path of a file, ``D`` a
piece of it, ``E`` the sentence that says why there is no more, and at the end ``Z``, whose length is the number of
files.
"""

import os
import stat
import struct
from typing import Iterator, List, NoReturn

PIECE_BYTES = 65536

_HEAD = struct.Struct("!cI")
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class _NotKept(Exception):
    """What is there cannot be kept."""


def _refuse(path: bytes, problem: str) -> NoReturn:
    raise _NotKept("{!r} {}".format(path.decode("utf-8", "backslashreplace")[:200], problem))


def _write(kind: bytes, data: bytes) -> None:
    _write_all(_HEAD.pack(kind, len(data)) + data)


def _write_all(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


class _Archive:
    """One walk over a folder."""

    def __init__(self, folder: bytes, most_files: int, most_file_bytes: int) -> None:
        self._folder = folder
        self._most_files = most_files
        self._most_file_bytes = most_file_bytes
        self._folders: List[bytes] = [b""]
        self._count = 0

    def write(self) -> None:
        if not stat.S_ISDIR(os.lstat(self._folder).st_mode):
            raise _NotKept("$SANDGATE_ARTIFACTS is not a folder any more")
        for path in self._walk():
            self._write_file(path)
        _write_all(_HEAD.pack(b"Z", self._count))

    def _walk(self) -> Iterator[bytes]:
        """The path of every file, with a slash before it."""
        for folder in self._folders:
            with os.scandir(self._folder + folder) as entries:
                found = sorted(entry.name for entry in self._bounded(entries))
            for name in found:
                path = folder + b"/" + name
                mode = os.lstat(self._folder + path).st_mode
                if stat.S_ISDIR(mode):
                    if len(self._folders) > self._most_files:
                        raise _NotKept("there are more than {} folders".format(self._most_files))
                    self._folders.append(path)
                elif stat.S_ISREG(mode):
                    yield path
                else:
                    kind = _KINDS.get(stat.S_IFMT(mode), "something else")
                    _refuse(path[1:], "is {}; only regular files and folders can be kept".format(kind))

    def _bounded(self, entries: "Iterator[os.DirEntry[bytes]]") -> "Iterator[os.DirEntry[bytes]]":
        for number, entry in enumerate(entries):
            if number > 2 * self._most_files:
                raise _NotKept("there are more than {} files".format(self._most_files))
            yield entry

    def _write_file(self, path: bytes) -> None:
        self._count += 1
        if self._count > self._most_files:
            raise _NotKept("there are more than {} files".format(self._most_files))
        descriptor = os.open(self._folder + path, _READ_FLAGS)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > self._most_file_bytes:
                _refuse(path[1:], "is larger than {} bytes".format(self._most_file_bytes))
            _write(b"F", path[1:])
            left = self._most_file_bytes + 1
            while left > 0:
                piece = os.read(descriptor, min(left, PIECE_BYTES))
                if not piece:
                    return
                _write(b"D", piece)
                left -= len(piece)
            _refuse(path[1:], "is larger than {} bytes".format(self._most_file_bytes))
        finally:
            os.close(descriptor)


def write_archive(name: str, most_files: int, most_file_bytes: int) -> None:
    """Write the archive of the folder ``name``, where temporary files are.

    What was written stays: the host may be killed before it has written down that it has it, and asks again.
    """
    folder = os.fsencode("{}/{}".format(os.environ.get("TMPDIR", "/tmp"), name))
    try:
        _Archive(folder, most_files, most_file_bytes).write()
    except _NotKept as refusal:
        _write(b"E", str(refusal).encode("utf-8", "replace"))
    except FileNotFoundError as error:
        if error.filename != folder:
            _write(b"E", b"the files changed while they were read")
        else:
            # The code has removed the folder itself.
            _write_all(_HEAD.pack(b"Z", 0))
    except OSError as error:
        shown = os.fsencode(error.filename or b"")[len(folder) + 1 :][:200].decode("utf-8", "backslashreplace")
        _write(b"E", "{!r} cannot be read: {}".format(shown, error.strerror).encode())
