"""Another role of a child: instead of code it runs one operation on files, with the powers that code has, and ends.

Whatever a path leads through, links, races and all, is within the walls: nobody outside ever follows one. What it
answers is hostile to the host all the same.

It writes to stdout one record, the length of a JSON text in 4 bytes and the text, and behind it the bytes of a file, if
it was asked for one. What is written to a file comes over the channel in pieces, each with its length in 4 bytes before
it, and ends with an empty one: an end without that is no end of the file.
"""

import errno
import json
import os
import stat
import struct
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

_LENGTH = struct.Struct("!I")
_OFFSET = struct.Struct("!Q")
_PIECE_BYTES = 256 * 1024
_MOST_ENTRIES = 200_000
_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "folder"), (stat.S_ISLNK, "link"))

Answer = Dict[str, Any]


class _Worker:
    """One operation. ``channel`` is where the host speaks, ``out`` where it is answered."""

    def __init__(self, channel: int, out: int) -> None:
        self._channel = channel
        self._out = out

    def answer(self, answer: Answer) -> None:
        """Say how it went."""
        text = json.dumps(answer).encode()
        _write_all(self._out, _LENGTH.pack(len(text)) + text)

    def run(self, operation: str, arguments: Dict[str, Any]) -> None:
        """Do it. Raises ``OSError``."""
        if operation == "read":
            self._read(arguments["path"])
        elif operation == "write":
            self._write(**arguments)
        else:
            self.answer(_OPERATIONS[operation](**arguments))

    def _read(self, path: str) -> None:
        descriptor = os.open(path, _READ_FLAGS)
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ENODEV, "it is no regular file", path)
        self.answer({"entry": _describe(path, status)})
        (offset,) = _OFFSET.unpack(self._receive(_OFFSET.size))
        os.lseek(descriptor, offset, os.SEEK_SET)
        left = status.st_size - offset
        while left > 0:
            piece = os.read(descriptor, min(left, _PIECE_BYTES))
            if not piece:
                return
            _write_all(self._out, piece)
            left -= len(piece)

    def _write(self, path: str, overwrite: bool, mode: Optional[int]) -> None:
        target = os.path.realpath(path)
        there = _find_status(target)
        if there is not None and not stat.S_ISREG(there.st_mode):
            number = errno.EISDIR if stat.S_ISDIR(there.st_mode) else errno.ENODEV
            raise OSError(number, os.strerror(number), path)
        if there is not None and not overwrite:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        folder = os.path.dirname(target)
        os.makedirs(folder, exist_ok=True)
        new = _NewFile(folder)
        try:
            for piece in self._pieces():
                _write_all(new.descriptor, piece)
            if mode is None:
                mode = 0o644 if there is None else stat.S_IMODE(there.st_mode)
            os.fchmod(new.descriptor, mode)
            new.put(target, overwrite)
        except BaseException:
            new.drop()
            raise
        self.answer({"entry": _describe(path, os.stat(target))})

    def _pieces(self) -> Iterator[bytes]:
        while True:
            (length,) = _LENGTH.unpack(self._receive(_LENGTH.size))
            if not length:
                return
            while length:
                piece = os.read(self._channel, min(length, _PIECE_BYTES))
                if not piece:
                    raise EOFError
                length -= len(piece)
                yield piece

    def _receive(self, length: int) -> bytes:
        whole = b""
        while len(whole) < length:
            part = os.read(self._channel, length - len(whole))
            if not part:
                raise EOFError
            whole += part
        return whole


class _NewFile:
    """A file without a name until it is whole, where the file system has such; otherwise with an odd one."""

    def __init__(self, folder: str) -> None:
        self._name = "{}/.upload-{}".format(folder.rstrip("/"), os.urandom(8).hex())
        self._has_name = False
        try:
            self.descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
            self._make_named()

    def _make_named(self) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        self.descriptor = os.open(self._name, flags, 0o600)
        self._has_name = True

    def put(self, target: str, overwrite: bool) -> None:
        """Give it its name: in one step, whatever was there."""
        if not self._has_name:
            # With a folder, which the whole path makes nothing of, links are followed; without one they are not.
            os.link("/proc/self/fd/{}".format(self.descriptor), self._name, src_dir_fd=0, follow_symlinks=True)
            self._has_name = True
        if overwrite:
            os.rename(self._name, target)
        else:
            os.link(self._name, target)
            os.unlink(self._name)
        self._has_name = False

    def drop(self) -> None:
        """There is no such file."""
        os.close(self.descriptor)
        if self._has_name:
            os.unlink(self._name)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _find_status(path: str) -> Optional[os.stat_result]:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _describe(path: str, status: os.stat_result) -> Answer:
    kind = next((name for test, name in _KINDS if test(status.st_mode)), "other")
    entry = {
        "path": path,
        "kind": kind,
        "size": status.st_size if kind == "file" else 0,
        "mode": stat.S_IMODE(status.st_mode),
        "modified_ns": status.st_mtime_ns,
        "inode": status.st_ino,
    }
    if kind == "link":
        try:
            entry["target"] = os.readlink(path)
        except OSError:
            # It was taken away just now.
            entry["target"] = ""
    return entry


def _stat(path: str) -> Answer:
    return {"entry": _describe(path, os.lstat(path))}


def _list(path: str, after: str, limit: int) -> Answer:
    """Entries by name, those behind ``after``."""
    names: List[str] = []
    with os.scandir(path) as found:
        for entry in found:
            if len(names) >= _MOST_ENTRIES:
                raise OSError(errno.EOVERFLOW, "it has more than {} entries".format(_MOST_ENTRIES), path)
            if entry.name > after:
                names.append(entry.name)
    names.sort()
    entries = []
    for name in names[:limit]:
        whole = name if path == "." else os.path.join(path, name)
        status = _find_status(whole)
        if status is not None:
            entries.append(_describe(whole, status))
    return {"entries": entries, "last": names[limit - 1] if len(names) > limit else None}


def _mkdir(path: str) -> Answer:
    os.makedirs(path, exist_ok=True)
    return _stat(path)


def _delete(path: str, recursive: bool) -> Answer:
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return {"deleted": 1}
    if not recursive:
        os.rmdir(path)
        return {"deleted": 1}
    _check_removable(path)
    return {"deleted": _delete_tree(path)}


def _check_removable(top: str) -> None:
    """What cannot go itself is to be refused before all that is in it has gone."""
    plain = top.rstrip("/")
    if os.path.basename(plain) in ("", ".", ".."):
        raise OSError(errno.EINVAL, "a folder is removed by its own name", top)
    if os.path.islink(plain):
        raise OSError(errno.ENOTDIR, "it is a link to a folder", top)
    if os.path.ismount(plain):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), top)
    if not os.access(os.path.dirname(plain) or ".", os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), top)


def _delete_tree(top: str) -> int:
    """Remove a tree without following a link, and without a stack that its depth could fill."""
    count = 0
    folders = [top]
    for folder in folders:
        with os.scandir(folder) as found:
            entries = list(found)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                os.unlink(entry.path)
                count += 1
    for folder in reversed(folders):
        os.rmdir(folder)
    return count + len(folders)


def _move(source: str, target: str, overwrite: bool) -> Answer:
    os.lstat(source)
    _check_free(target, overwrite)
    os.rename(source, target)
    return _stat(target)


def _copy(source: str, target: str, overwrite: bool) -> Answer:
    _check_free(target, overwrite)
    todo: List[Tuple[str, str]] = [(source, target)]
    if os.path.isdir(source) and (os.path.realpath(target) + "/").startswith(os.path.realpath(source) + "/"):
        raise OSError(errno.EINVAL, "a folder cannot be copied into itself", target)
    for each, copy in todo:
        if len(todo) > _MOST_ENTRIES:
            raise OSError(errno.EOVERFLOW, "there are more than {} entries".format(_MOST_ENTRIES), source)
        mode = os.lstat(each).st_mode
        if stat.S_ISDIR(mode):
            os.makedirs(copy, exist_ok=True)
            todo.extend((os.path.join(each, name), os.path.join(copy, name)) for name in sorted(os.listdir(each)))
        elif stat.S_ISLNK(mode):
            _copy_link(each, copy, overwrite)
        elif stat.S_ISREG(mode):
            _copy_file(each, copy, stat.S_IMODE(mode))
        else:
            raise OSError(errno.ENODEV, "it is no regular file", each)
    return _stat(target)


def _copy_link(source: str, target: str, overwrite: bool) -> None:
    leads_to = os.readlink(source)
    if overwrite and os.path.lexists(target):
        if os.path.exists(target) and os.path.exists(source):
            _check_apart(os.stat(source), os.stat(target), target)
        os.unlink(target)
    os.symlink(leads_to, target)


def _check_apart(source: os.stat_result, target: os.stat_result, path: str) -> None:
    """By whatever names: of a file that is copied onto itself nothing would be left."""
    if os.path.samestat(source, target):
        raise OSError(errno.EINVAL, "a file cannot be copied onto itself", path)


def _copy_file(source: str, target: str, mode: int) -> None:
    reading = os.open(source, _READ_FLAGS)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        writing = os.open(target, flags, mode)
        try:
            there = os.fstat(writing)
            _check_apart(os.fstat(reading), there, target)
            if there.st_size:
                os.ftruncate(writing, 0)
            while True:
                piece = os.read(reading, _PIECE_BYTES)
                if not piece:
                    break
                _write_all(writing, piece)
            os.fchmod(writing, mode)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _check_free(target: str, overwrite: bool) -> None:
    if not overwrite and os.path.lexists(target):
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    folder = os.path.dirname(target)
    if folder:
        os.makedirs(folder, exist_ok=True)


_OPERATIONS: Dict[str, Callable[..., Answer]] = {
    "stat": _stat,
    "list": _list,
    "mkdir": _mkdir,
    "delete": _delete,
    "move": _move,
    "copy": _copy,
}


def run(request: Dict[str, Any], channel: int, out: int) -> int:
    """Do what is asked and answer it; the exit code."""
    worker = _Worker(channel, out)
    try:
        worker.run(request["operation"], request["arguments"])
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "EIO")
        worker.answer({"error": name, "message": error.strerror or "", "path": os.fspath(error.filename or "")})
    except EOFError:
        # The host has let go in the middle; nothing was changed.
        return 1
    return 0
