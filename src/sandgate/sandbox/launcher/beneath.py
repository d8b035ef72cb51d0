"""Folders opened by a path from another folder on, whatever has been put on the way.

Source: openat2(2); the number is the same for every processor (include/uapi/asm-generic/unistd.h).
"""

import ctypes
import errno
import os
import struct

from sandgate_agent import calls

_OPENAT2 = 437
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x1, 0x2, 0x4, 0x8
_HOW = struct.pack(
    "QQQ",
    os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
    0,
    _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH,
)


def open_folder(root: int, path: str) -> int:
    """A folder at a path below another one: no link is followed, no mount entered, and no step leads upwards.

    Raises ``OSError``.
    """
    made = calls.prepare("syscall", _OPENAT2, root, os.fsencode(path), _HOW, ctypes.c_size_t(len(_HOW)))
    folder = made()
    if folder < 0:
        number = calls.failure(made).errno or errno.EINVAL
        raise OSError(number, os.strerror(number), path)
    return folder
