"""Disks of sandboxes whose files are not in memory: an image for each, which no name leads to.

A blank one is made once for each size; a sandbox's is a copy of the few blocks that are not empty. It has no name from
the start, so that it goes with its last mount, whoever was killed meanwhile. All of it blocks: it is done in errands.
"""

import errno
import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandgate.sandbox.launcher import images, sparse

_INODE, _BLOCK = 256, 4096
# What the file system needs for itself, beside the tables of inodes: a part of all, and something that does not grow.
_PART, _OWN_BYTES = 24, 4 * 1024 * 1024
_MOST_AT_ONCE = 1 << 20
# Sizes are what users ask for.
_MOST_BLANKS = 32
# What may be missing of what was asked for, how often it is tried to come nearer, and which part may be missing then.
_NEAR_BYTES, _ROUNDS, _BEARABLE_PART = 128 * 1024, 8, 16
_FEATURES = "^has_journal,^resize_inode"


@dataclass(frozen=True, slots=True)
class Disks:
    """The folder of blank images, which belongs to root and which nobody else can enter."""

    folder: Path

    def mount(self, disk_bytes: int, inodes: int) -> int:
        """A new disk for so many bytes and files, mounted and attached nowhere. Raises ``OSError``."""
        folder = images.open_folder(self.folder)
        try:
            blank = _open_blank(folder, disk_bytes, inodes)
            try:
                made = _make_nameless(folder)
                try:
                    _copy(blank, made)
                    return images.mount_alone(made)
                finally:
                    os.close(made)
            finally:
                os.close(blank)
        finally:
            os.close(folder)


def _make_nameless(folder: int) -> int:
    """A file that no name leads to. Raises ``OSError``."""
    nameless = images.make_nameless(folder)
    if nameless is not None:
        return nameless
    name = f"disk.{os.getpid()}{images.DRAFT}"
    made = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    os.unlink(name, dir_fd=folder)
    return made


def _open_blank(folder: int, disk_bytes: int, inodes: int) -> int:
    """The blank image of a size, made when there is none. Raises ``OSError``."""
    name = f"blank-{disk_bytes}-{inodes}.img"
    with suppress(FileNotFoundError):
        return _open(folder, name)
    # Of all who need one at once one makes it; the lock goes with the descriptor.
    fcntl.flock(folder, fcntl.LOCK_EX)
    with suppress(FileNotFoundError):
        return _open(folder, name)
    _make_room(folder)
    with images.new_file(folder, name) as made:
        _make_blank(made, disk_bytes, inodes)
        return os.dup(made)


def _open(folder: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def _make_blank(image: int, disk_bytes: int, inodes: int) -> None:
    """Make one that has room for so many bytes, which is known once it is mounted. Raises ``OSError``.

    Where another group of blocks begins there may be no size that has exactly as many: then it is the next less.
    """
    size, least, fitting = _whole_size(disk_bytes, inodes), disk_bytes // _BEARABLE_PART + 1, None
    for _round in range(_ROUNDS):
        lack = disk_bytes - _try_size(image, size, inodes)
        if 0 <= lack < _NEAR_BYTES:
            return
        if 0 <= lack < least:
            least, fitting = lack, size
        # Whole blocks, and rather too few.
        size += lack // _BLOCK * _BLOCK
    if fitting is None:
        raise OSError(errno.EINVAL, f"no disk of {disk_bytes} bytes for {inodes} files can be made")
    _try_size(image, fitting, inodes)


def _try_size(image: int, size: int, inodes: int) -> int:
    """Make a file system in so many bytes; answers how many of them files may have. Raises ``OSError``."""
    os.truncate(image, 0)
    os.truncate(image, size)
    images.make_file_system(image, ["-O", _FEATURES, "-N", str(inodes)], owner=0)
    mount = images.mount_alone(image)
    found = os.fstatvfs(mount)
    os.close(mount)
    return found.f_bavail * found.f_frsize


def _make_room(folder: int) -> None:
    """Of too many sizes all are made again when they are asked for."""
    there = [name for name in os.listdir(folder) if name.endswith(".img")]
    for name in there if len(there) >= _MOST_BLANKS else ():
        # Somebody else may be at it, too.
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _whole_size(disk_bytes: int, inodes: int) -> int:
    size = disk_bytes + disk_bytes // _PART + inodes * _INODE + _OWN_BYTES
    return (size + _BLOCK - 1) // _BLOCK * _BLOCK


def _copy(source: int, target: int) -> None:
    """What there is of a sparse file. Raises ``OSError``."""
    end = os.fstat(source).st_size
    os.truncate(target, end)
    for first, stop in sparse.find_parts(source, end):
        start = first
        while start < stop:
            piece = os.pread(source, min(_MOST_AT_ONCE, stop - start), start)
            # A disk that is nearly full takes a part of it, and refuses the rest.
            start += os.pwrite(target, piece, start)
