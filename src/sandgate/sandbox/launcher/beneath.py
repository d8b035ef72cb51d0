"""Folders opened by a path from another folder on, whatever has been put on the way.

Source: openat2(2); the number is the same for every processor (include/uapi/asm-generic/unistd.h).
"""

import ctypes
import os
import struct

from sandgate.sandbox.launcher import system_calls

_OPENAT2 = 437
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x1, 0x2, 0x4, 0x8
_RESOLVE = _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH


def open_folder(root: int, path: str, access: int = os.O_RDONLY) -> int:
    """A folder at a path below another one: no link is followed, no mount entered, and no step leads upwards.

    ``access`` may be ``O_PATH``. Raises ``OSError``.
    """
    how = struct.pack("QQQ", access | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _RESOLVE)
    try:
        return system_calls.make(_OPENAT2, root, os.fsencode(path), how, ctypes.c_size_t(len(how)))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
