"""Mounts that are attached nowhere yet: made by root outside, given to a sandbox that is there already.

One is a descriptor. As long as it is attached nowhere no path leads to it, and it goes when its last descriptor does,
so that nothing has to be cleared away after whoever made it. Source: open_tree(2), mount_setattr(2), move_mount(2); the
numbers are the same for every processor (include/uapi/asm-generic/unistd.h, include/uapi/linux/mount.h).
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from sandgate.sandbox.launcher import system_calls
from sandgate.sandbox.launcher.beneath import open_folder
from sandgate_agent import system

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 429, 430, 431, 432
_MOUNT_SETATTR = 442
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 1, 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE = 1
_F_EMPTY_PATH, _T_EMPTY_PATH = 0x4, 0x40
_RDONLY, _NOSUID, _NODEV, _IDMAP = 0x1, 0x2, 0x4, 0x100000
_PRIVATE = 1 << 18


def bind(folder: Path) -> int:
    """What is at a folder of the host's, without the mounts below it. Raises ``OSError``."""
    return system_calls.make(_OPEN_TREE, _AT_FDCWD, os.fsencode(folder), _OPEN_TREE_CLONE | os.O_CLOEXEC)


def make(kind: str, source: str, flags: Iterable[str] = ()) -> int:
    """A file system on a device; one that is mounted already is the same. Raises ``OSError``."""
    context = system_calls.make(_FSOPEN, kind.encode(), _FSOPEN_CLOEXEC)
    try:
        system_calls.make(_FSCONFIG, context, _SET_STRING, b"source", os.fsencode(source), 0)
        for flag in flags:
            system_calls.make(_FSCONFIG, context, _SET_FLAG, flag.encode(), None, 0)
        system_calls.make(_FSCONFIG, context, _CREATE, None, None, 0)
        return system_calls.make(_FSMOUNT, context, _FSMOUNT_CLOEXEC, _NOSUID | _NODEV)
    finally:
        os.close(context)


def confine(mount: int, *, read_only: bool, user_namespace: int | None = None) -> None:
    """Let no file of it lend anybody a user's power, and none be a device; perhaps let none be written.

    What is mounted below the folder on the host from now on does not appear in it, nor the other way round.

    With ``user_namespace`` (a descriptor) the owners on the disk are the ids inside that namespace: what is of user
    1000 on the disk is of user 1000 in there, whoever that is outside. Raises ``OSError``, also where the file system
    or the kernel cannot do that.
    """
    flags = _NOSUID | _NODEV | (_RDONLY if read_only else 0) | (0 if user_namespace is None else _IDMAP)
    attributes = struct.pack("QQQQ", flags, 0, _PRIVATE, user_namespace or 0)
    system_calls.make(_MOUNT_SETATTR, mount, b"", _AT_EMPTY_PATH, attributes, ctypes.c_size_t(len(attributes)))


def open_mount_point(path: str, place: str = "/") -> int:
    """The folder to attach a mount to, made with all above it where it is missing. Raises ``OSError``.

    It is empty and on the file system that is at ``place``, below which ``path`` is: no link is followed, nothing that
    is mounted is entered, and nothing that is there is hidden.
    """
    folder = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in path.strip("/").split("/"):
        above = folder
        try:
            system.make_folder(name, above)
            folder = open_folder(above, name, os.O_PATH)
        finally:
            os.close(above)
    _check_empty(folder)
    return folder


def _check_empty(folder: int) -> None:
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        if os.listdir(readable):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
    finally:
        os.close(readable)


def attach(mount: int, folder: int) -> None:
    """Attach it in the mount namespace of this process. Raises ``OSError``."""
    system_calls.make(_MOVE_MOUNT, mount, b"", folder, b"", _F_EMPTY_PATH | _T_EMPTY_PATH)
