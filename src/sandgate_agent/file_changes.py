"""What an environment does with its files where no content comes in or goes out; see ``file_worker``."""

import errno
import os
import stat
from typing import Any, Callable, Dict, List, Optional, Tuple

MOST_ENTRIES = 200_000
PIECE_BYTES = 256 * 1024
READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "folder"), (stat.S_ISLNK, "link"))

Message = Dict[str, Any]


def write_all(descriptor: int, data: bytes) -> None:
    """All of it, however many writes it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def find_status(path: str) -> Optional[os.stat_result]:
    """What is at a path, a link itself; None where nothing is."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def describe(path: str, status: os.stat_result) -> Message:
    """As it is told."""
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


def _stat(path: str) -> Message:
    return {"entry": describe(path, os.lstat(path))}


def _mkdir(path: str) -> Message:
    os.makedirs(path, exist_ok=True)
    return _stat(path)


def _delete(path: str, recursive: bool) -> Message:
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return {"deleted": 1}
    if not recursive:
        os.rmdir(path)
        return {"deleted": 1}
    _check_removable(path)
    return {"deleted": delete_tree(path)}


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


def delete_tree(top: str) -> int:
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


def _move(source: str, target: str, overwrite: bool) -> Message:
    os.lstat(source)
    _check_free(target, overwrite)
    os.rename(source, target)
    return _stat(target)


def _copy(source: str, target: str, overwrite: bool) -> Message:
    _check_free(target, overwrite)
    todo: List[Tuple[str, str]] = [(source, target)]
    if os.path.isdir(source) and (os.path.realpath(target) + "/").startswith(os.path.realpath(source) + "/"):
        raise OSError(errno.EINVAL, "a folder cannot be copied into itself", target)
    for each, copy in todo:
        if len(todo) > MOST_ENTRIES:
            raise OSError(errno.EOVERFLOW, "there are more than {} entries".format(MOST_ENTRIES), source)
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
    reading = os.open(source, READ_FLAGS)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        writing = os.open(target, flags, mode)
        try:
            there = os.fstat(writing)
            _check_apart(os.fstat(reading), there, target)
            if there.st_size:
                os.ftruncate(writing, 0)
            while True:
                piece = os.read(reading, PIECE_BYTES)
                if not piece:
                    break
                write_all(writing, piece)
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


OPERATIONS: Dict[str, Callable[..., Message]] = {
    "stat": _stat,
    "mkdir": _mkdir,
    "delete": _delete,
    "move": _move,
    "copy": _copy,
}
