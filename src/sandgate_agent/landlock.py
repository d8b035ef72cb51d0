"""What a process without privileges may keep itself and its children from: files that are not theirs, and signals.

Source: landlock(7) and include/uapi/linux/landlock.h. The kernel says which version of it it has; without any a fence
is not put up, and whoever wants one is told so.
"""

import ctypes
import os
import struct
import sys
from typing import Iterable, Set, Tuple

from sandgate_agent import calls

# The same for every processor. Source: include/uapi/asm-generic/unistd.h
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_TCP, _SCOPES = 0x3, 0x3

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 0x1, 0x2, 0x4, 0x8
_FIRST = 0x1FFF
_REFER, _TRUNCATE, _IOCTL_DEV = 0x2000, 0x4000, 0x8000
#: All that can be done with files and folders, as far as the kernel knows it.
ALL = _FIRST | _REFER | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_SYSTEM = ("/bin", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/sbin", "/sys", "/usr")

#: What gives a machine one.
MEND = "boot with lsm=landlock on Linux 5.13 or newer"

Place = Tuple[str, int]
"""A folder, and what may be done with it and below it."""


def find_version() -> int:
    """The version that this kernel has; 0 where there is none, or where it is switched off."""
    return max(0, calls.prepare("syscall", _CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)())


def restrict(places: Iterable[Place], *, network: bool) -> int:
    """Of all files only these places can be reached from here on, and over TCP only with ``network``.

    Nobody outside can be signalled, where the kernel can keep from that. As a call is: less than 0 is a failure, also
    where there is no Landlock (``ENOSYS``, or ``EOPNOTSUPP`` where it is switched off): nothing is kept from then.
    """
    version = find_version()
    rights = _FIRST | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    rights |= _IOCTL_DEV if version >= 5 else 0
    # An older kernel knows fewer fields and takes no more of them.
    known = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("@QQQ", rights, 0 if network else _TCP, _SCOPES)[:known]
    rules = calls.prepare("syscall", _CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)()
    if rules < 0:
        return rules
    try:
        for path, wanted in places:
            _allow(rules, path, wanted & rights)
        return int(calls.prepare("syscall", _RESTRICT_SELF, rules, 0)())
    finally:
        os.close(rules)


def _interpreter() -> Set[str]:
    """The folders that this interpreter reads."""
    places = [sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    return {os.path.realpath(place) for place in [*places, *sys.path] if place}


class Fence:
    """A fence around a folder: prepared in the zygote, put up by a process for itself and all that it starts."""

    def __init__(self, folder: str) -> None:
        self._places = [
            *((path, _READ) for path in sorted({*_SYSTEM, *_interpreter()})),
            # Devices have users of their own, and a process writes to its own files of ``/proc``.
            ("/dev", _READ | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV),
            ("/proc", _READ | _WRITE_FILE),
            ("/dev/shm", ALL),
            (folder, ALL),
        ]

    def put_up(self) -> int:
        """Nothing outside of the folder can be written from here on, and of the rest only the system's files be read.

        See :func:`restrict`.
        """
        return restrict(self._places, network=True)


def _allow(rules: int, path: str, rights: int) -> None:
    """Add a folder and what is below it; one that is not there, or is no folder, needs no rule."""
    try:
        folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    rule = struct.pack("=Qi", rights, folder)
    calls.prepare("syscall", _ADD_RULE, rules, _PATH_BENEATH, rule, 0)()
    os.close(folder)
