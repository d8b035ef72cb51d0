"""The folders of running servers below one that they share: each held by its server, and cleared when nobody is left.

A server that is killed has no time to remove its folder and its control groups. The next start on the same state
folder uses them again; when there is none, whichever server starts next on this machine removes them.
"""

import fcntl
import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_NAME = re.compile(r"[0-9a-f]{12}")
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDERS, _FILES = ("jail", "sandboxes"), ("launcher.log", "launcher.sock")
_SOCKET = "launcher.sock"


def hold(folder: Path) -> int:
    """Make the folder, if need be; as long as the descriptor is open nobody clears it."""
    while True:
        with suppress(FileNotFoundError):
            # Whoever clears up may remove what was just made, or what it is in.
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor = os.open(folder, _FLAGS)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if _is_still(descriptor, folder):
                return descriptor
            os.close(descriptor)


def clear(shared: Path, remove_rest: Callable[[str], bool] = lambda _name: True) -> None:
    """Remove the folders below one whose servers are gone, with what servers leave there and nothing else.

    Before, ``remove_rest`` is called with the name of each, while nobody else can have the folder; where it answers
    False the folder stays, too.
    """
    try:
        names = [name for name in os.listdir(shared) if _NAME.fullmatch(name)]
    except FileNotFoundError:
        return
    for name in names:
        with suppress(OSError):
            descriptor = os.open(shared / name, _FLAGS)
            try:
                _clear_one(shared / name, descriptor, remove_rest)
            finally:
                os.close(descriptor)


def _clear_one(folder: Path, descriptor: int, remove_rest: Callable[[str], bool]) -> None:
    """Raises ``OSError`` when somebody has it, and when something else is in it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # A launcher outlives a server that was killed, with its environments, which the next start takes over.
    if _is_answered(descriptor) or not _is_still(descriptor, folder) or not remove_rest(folder.name):
        return
    for name in _FOLDERS:
        with suppress(FileNotFoundError):
            os.rmdir(name, dir_fd=descriptor)
    if set(os.listdir(descriptor)) <= set(_FILES):
        for name in _FILES:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=descriptor)
        folder.rmdir()


def _is_answered(descriptor: int) -> bool:
    """Whether a launcher listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        # One that has no place for another one now is waited for by nobody.
        probe.setblocking(False)
        try:
            probe.connect(f"/proc/self/fd/{descriptor}/{_SOCKET}")
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            # Another kind of socket, or one that is busy: whoever has it lives.
            return True
        return True


def _is_still(descriptor: int, folder: Path) -> bool:
    """Whether the open folder is the one that has this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(folder, follow_symlinks=False))
    except FileNotFoundError:
        return False
