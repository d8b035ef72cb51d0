"""The file system in memory that is the root of a sandbox, seen and changed from outside.

No path of the sandbox's is followed: ``/proc/PID/root`` is the kernel's own link, and the rest goes by descriptor.
"""

import os
from dataclasses import dataclass

from sandgate.sandbox.launcher import processes, system_calls

# The same for every processor. Source: include/uapi/asm-generic/unistd.h and include/uapi/linux/mount.h
_FSCONFIG, _FSPICK = 431, 433
_FSPICK_CLOEXEC, _FSPICK_EMPTY_PATH = 0x1, 0x8
_SET_STRING, _RECONFIGURE = 1, 7


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """What is taken of a disk."""

    used_bytes: int
    used_inodes: int


def open_root(pid: int, pidfd: int) -> int:
    """A descriptor of the root of the process, which can be used for nothing but this module. Raises ``OSError``."""
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC)
    try:
        # It still lives, so that the number was not another's.
        processes.check_lives(pidfd)
    except OSError:
        os.close(root)
        raise
    return root


def usage(root: int) -> DiskUsage:
    """What is taken of the disk. Raises ``OSError``."""
    found = os.fstatvfs(root)
    return DiskUsage((found.f_blocks - found.f_bfree) * found.f_frsize, found.f_files - found.f_ffree)


def resize(root: int, disk_bytes: int) -> None:
    """Give the disk another size. Raises ``OSError``, also where the kernel is older than 5.2."""
    context = system_calls.make(_FSPICK, root, b"", _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH)
    try:
        system_calls.make(_FSCONFIG, context, _SET_STRING, b"size", str(disk_bytes).encode(), 0)
        system_calls.make(_FSCONFIG, context, _RECONFIGURE, None, None, 0)
    except OSError as error:
        raise OSError(error.errno, f"the disk cannot be changed: {error.strerror}") from error
    finally:
        os.close(context)
