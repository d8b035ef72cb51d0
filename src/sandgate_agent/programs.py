"""Code of another language than the interpreter's: written to a file, and the program that runs it waited for.

The file is in the folder that the code begins in, because programs look there for what belongs to it, and is removed
when the program has ended. One that was left by an execution that was killed is taken by the next: whoever has the
lock of a file may use its name.
"""

import _signal
import errno
import os
import stat
from typing import List, Optional, Sequence, Tuple

from sandgate_agent import calls

_NAME = ".sandgate-code"
_MOST_NAMES = 64
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Source: flock(2)
_LOCK = 2 | 4
_PLACE = "{file}"
_NOT_TO_BE_WRITTEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# What has the name of a file: a link, a folder, a pipe.
_NO_FILES = (errno.ELOOP, errno.EISDIR, errno.ENXIO)
# What the interpreter ignores and a program does not expect to be ignored.
_TO_DEFAULT = (_signal.SIGPIPE, _signal.SIGXFSZ)


def find(name: str) -> Optional[str]:
    """The path of a program, looked for as a shell does; None when it is not there."""
    folders = [""] if "/" in name else os.environ.get("PATH", "").split(":")
    for folder in folders:
        path = folder + "/" + name if folder else name
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def choose(commands: Sequence[Sequence[str]]) -> Tuple[str, Sequence[str]]:
    """The first command whose program is there, with its path. Raises ``FileNotFoundError``."""
    for command in commands:
        path = find(command[0])
        if path is not None:
            return path, command
    names = " and ".join(command[0] for command in commands)
    raise FileNotFoundError(errno.ENOENT, "no such program in PATH", names)


def run(commands: Sequence[Sequence[str]], extension: str, source: bytes, args: Sequence[str], spare: str) -> int:
    """Run code to its end and answer the exit code; a signal that ended the program ends this process, too.

    ``spare`` is the folder for the file where the code's own cannot be written. Raises ``OSError``.
    """
    path, command = choose(commands)
    descriptor, file = _write(source, extension, spare)
    try:
        pid = os.posix_spawn(path, _fill_in(command, file, args), os.environ, setsigdef=_TO_DEFAULT)
        status = os.waitpid(pid, 0)[1]
    finally:
        _remove(file)
        os.close(descriptor)
    return end_as(status)


def end_as(status: int) -> int:
    """The exit code in a wait status; ends this process by the signal that is in it instead."""
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    number = os.WTERMSIG(status)
    if number != _signal.SIGKILL:
        _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    # One that is blocked.
    return 128 + number


def _fill_in(command: Sequence[str], file: str, args: Sequence[str]) -> List[str]:
    filled = [word.replace(_PLACE, file) for word in command]
    return [*filled, *([] if filled != list(command) else [file]), *args]


def _write(source: bytes, extension: str, spare: str) -> Tuple[int, str]:
    """A locked descriptor of a file with the code, and its path. Raises ``OSError``."""
    try:
        descriptor, path = _open(os.getcwd(), extension)
    except OSError as error:
        if error.errno not in _NOT_TO_BE_WRITTEN:
            raise
        descriptor, path = _open(spare, extension)
    try:
        os.ftruncate(descriptor, 0)
        os.fchmod(descriptor, 0o644)
        while source:
            source = source[os.write(descriptor, source) :]
    except OSError as error:
        _remove(path)
        os.close(descriptor)
        raise OSError(error.errno, error.strerror, path) from None
    return descriptor, path


def _open(folder: str, extension: str) -> Tuple[int, str]:
    """The first name that nobody else uses now."""
    for number in range(1, _MOST_NAMES + 1):
        end = extension if number == 1 else "-{}{}".format(number, extension)
        path = "{}/{}{}".format(folder.rstrip("/"), _NAME, end)
        descriptor = _take(path)
        if descriptor is not None:
            return descriptor, path
    raise FileExistsError(errno.EEXIST, "all names for the code's file are taken", folder)


def _take(path: str) -> Optional[int]:
    try:
        descriptor = os.open(path, _FLAGS, 0o600)
    except PermissionError:
        if os.path.lexists(path):
            return None
        raise
    except OSError as error:
        if error.errno in _NO_FILES:
            return None
        raise
    status = os.fstat(descriptor)
    is_mine = stat.S_ISREG(status.st_mode) and calls.prepare("flock", descriptor, _LOCK)() == 0
    # Whoever had the lock before removed the file, so that another one may have its name by now.
    if is_mine and os.fstat(descriptor).st_nlink:
        return descriptor
    os.close(descriptor)
    return None


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
