"""Volumes as files with an ext4 in each, and the mounts of them. All of it blocks: it is done in errands, never in the
launcher itself.

Whatever the file system of the state folder is, an image bounds a volume in bytes and inodes. Nothing is written down
and nothing is attached to the host's tree, so that there is nothing to clear away after whoever was killed: an image is
locked by its loop device, the kernel lets go of that when the last mount is gone, and mounts go with those who have
them. Two mounts of a volume are one file system.
"""

import errno
import fcntl
import os
import signal
import stat
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sandgate.sandbox.launcher import mounts
from sandgate_agent import system

# Whose files they are on the disk: the ids inside, see mounts.confine.
_USER = 1000
PROGRAMS = "/usr/sbin:/sbin:/usr/bin:/bin"
_MAKE = ("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-e", "remount-ro")
_OF_VOLUMES = ("-J", "size=4", "-O", "^resize_inode")
_LAZY = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
# Shorter than whoever waits for it: it clears up after itself.
_MAKE_LIMIT_S = 8.0
# Blocks that are free again are given back to the host, and tables of a sparse file need not be zeroed.
_MOUNT_FLAGS = ("discard", "noinit_itable")
# Source: include/uapi/linux/loop.h; lo_flags is at byte 52 of struct loop_info64, behind a descriptor and a size.
_LOOP_CONFIGURE, _LOOP_GET_STATUS64, _LOOP_CTL_GET_FREE = 0x4C0A, 0x4C05, 0x4C82
_LO_FLAGS_AUTOCLEAR, _LO_FLAGS_DIRECT_IO = 4, 16
_INFO_BYTES, _FLAGS_AT, _RESERVED_BYTES, _SECTOR = 232, 52, 64, 4096
_PATIENCE_S, _PAUSE_S = 20.0, 0.005
# Source: struct ext4_super_block: low halves of the blocks, of those that are free, and those of the file system's own.
_SUPERBLOCK_AT, _BLOCKS_AT, _FREE_AT, _MAGIC_AT, _OVERHEAD_AT, _MAGIC = 1024, 0x4, 0xC, 0x38, 0x248, 0xEF53
_BLOCK = 4096
# How a file ends that is not finished.
DRAFT = ".new"


@dataclass(frozen=True, slots=True)
class Shelf:
    """The folder that images are in, which belongs to root and which nobody else can enter."""

    folder: Path

    def make(self, volume: str, size_bytes: int) -> None:
        """See to it that there is an image, empty if there was none. Raises ``OSError``."""
        # What cannot be mounted is found out now, and not when somebody needs it.
        os.close(self.mount(volume, size_bytes))

    def mount(self, volume: str, size_bytes: int) -> int:
        """A mount of a volume that is attached nowhere; the image is made when there is none. Raises ``OSError``."""
        with _Folder(self.folder, make=True) as folder:
            image = folder.find(volume)
            if image is None:
                image = folder.add(volume, size_bytes)
            try:
                return _mount(image)
            finally:
                os.close(image)

    def remove(self, volume: str) -> None:
        """Take away an image; one that is not there is no error. What is mounted of it stays until it is not."""
        with suppress(FileNotFoundError), _Folder(self.folder, make=False) as folder:
            folder.remove(volume)

    def usage(self, volumes: Iterable[str]) -> Mapping[str, int]:
        """The bytes that files take in each, 0 where there is no image yet. Raises ``OSError``."""
        try:
            with _Folder(self.folder, make=False) as folder:
                return {volume: folder.usage(volume) for volume in volumes}
        except FileNotFoundError:
            return dict.fromkeys(volumes, 0)


def open_folder(path: Path, *, make: bool = True) -> int:
    """A folder of root's, made when it is missing. Raises ``OSError``, also when it is not root's alone."""
    if make:
        path.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        os.close(descriptor)
        raise OSError(errno.EPERM, f"{path} does not belong to root alone")
    return descriptor


def sweep(path: Path) -> None:
    """Take away what somebody who was killed had not finished. Raises ``OSError``."""
    with suppress(FileNotFoundError):
        folder = open_folder(path, make=False)
        try:
            for name in os.listdir(folder):
                if name.endswith(DRAFT):
                    os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)


@contextmanager
def new_file(folder: int, name: str) -> Iterator[int]:
    """A new file, which has its name once the block has ended, unless another one has it by then.

    Before it has no name at all, so that nothing is left of it whoever is killed. Raises ``OSError``.
    """
    draft, file = None, make_nameless(folder)
    if file is None:
        draft = f"{name}.{os.getpid()}{DRAFT}"
        with suppress(FileNotFoundError):
            # Of one that was killed, and had the same number.
            os.unlink(draft, dir_fd=folder)
        file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        yield file
        os.fsync(file)
        with suppress(FileExistsError):
            os.link(draft or f"/proc/self/fd/{file}", name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(file)
        if draft is not None:
            os.unlink(draft, dir_fd=folder)


def make_nameless(folder: int) -> int | None:
    """A file that no name leads to; None where the file system makes no such. Raises ``OSError``."""
    try:
        return os.open(f"/proc/self/fd/{folder}", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        # Source: open(2), O_TMPFILE.
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            return None
        raise


class _Folder:
    """The folder, open. What is in it was put there by root, whoever may have moved the folder itself."""

    def __init__(self, path: Path, *, make: bool) -> None:
        self._descriptor = open_folder(path, make=make)

    def __enter__(self) -> "_Folder":
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._descriptor)

    def find(self, volume: str) -> int | None:
        """Its image, open; None when there is none. Raises ``OSError``."""
        try:
            image = os.open(f"{volume}.img", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._descriptor)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(os.fstat(image).st_mode):
            os.close(image)
            raise OSError(errno.EINVAL, f"the image of {volume} is no file")
        return image

    def add(self, volume: str, size_bytes: int) -> int:
        """Make an image and answer it, open. Of two who do so at once one does. Raises ``OSError``."""
        room = os.fstatvfs(self._descriptor)
        if room.f_bavail * room.f_frsize < size_bytes:
            raise OSError(errno.ENOSPC, "the disk of the server has no room for it")
        with new_file(self._descriptor, f"{volume}.img") as image:
            os.truncate(image, size_bytes)
            make_file_system(image, _OF_VOLUMES, owner=_USER)
        made = self.find(volume)
        if made is None:
            raise OSError(errno.ENOENT, f"{volume} was deleted meanwhile")
        return made

    def remove(self, volume: str) -> None:
        """Raises ``OSError``."""
        os.unlink(f"{volume}.img", dir_fd=self._descriptor)
        os.fsync(self._descriptor)

    def usage(self, volume: str) -> int:
        """What is mounted is asked; of what is not the image tells. Raises ``OSError``."""
        image = self.find(volume)
        if image is None:
            return 0
        try:
            if not _is_attached(image):
                return _used_on_disk(image)
            mount = _mount(image)
            found = os.fstatvfs(mount)
            os.close(mount)
            return (found.f_blocks - found.f_bfree) * found.f_frsize
        finally:
            os.close(image)


def make_file_system(image: int, options: Sequence[str], owner: int) -> None:
    """An ext4 in an image, whose root folder belongs to a user. Raises ``OSError``."""
    path = f"/proc/self/fd/{image}"
    try:
        made = subprocess.run(  # noqa: S603 - our own arguments
            [*_MAKE, "-E", f"{_LAZY},root_owner={owner}:{owner}", *options, path],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={"PATH": PROGRAMS},
            pass_fds=[image],
            # Whoever kills this process means it, too.
            preexec_fn=lambda: system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL),
            timeout=_MAKE_LIMIT_S,
            check=False,
        )
    except FileNotFoundError:
        raise OSError(errno.ENOENT, "mkfs.ext4 was not found; install the package e2fsprogs") from None
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"mkfs.ext4 took more than {_MAKE_LIMIT_S:g} seconds") from None
    if made.returncode:
        raise OSError(errno.EIO, f"mkfs.ext4 failed: {made.stderr.strip()[-200:]}")
    os.fsync(image)


def _mount(image: int) -> int:
    """A mount of an image that is attached nowhere. Raises ``OSError``."""
    return _mount_device(*_attach(image))


def mount_alone(image: int) -> int:
    """A mount of an image that nobody else can have. Raises ``OSError``."""
    return _mount_device(*_new_device(image))


def _mount_device(device: int, path: str) -> int:
    try:
        mount = mounts.make("ext4", path, _MOUNT_FLAGS)
    finally:
        # From here on the mount keeps the device, and the device the lock of the image.
        os.close(device)
    with suppress(OSError):
        # What the file system came with is root's, and of use to nobody; one of that name may be the user's.
        if os.stat("lost+found", dir_fd=mount, follow_symlinks=False).st_uid == 0:
            os.rmdir("lost+found", dir_fd=mount)
    return mount


def _is_attached(image: int) -> bool:
    """Whether a loop device has locked it."""
    try:
        fcntl.flock(image, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(image, fcntl.LOCK_UN)
    return False


def _attach(image: int) -> tuple[int, str]:
    """The loop device of an image, open, and its path: the one that there is, or else a new one. Raises ``OSError``.

    Two devices of one image would be two file systems on the same blocks. The lock belongs to the description of the
    open file, which the device keeps: it is held for exactly as long as the device has the image.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(image, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = _find_device(image)
        else:
            return _new_device(image)
        if found is not None:
            return found
        # Somebody is about to attach it, or the kernel about to let go of it.
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, "its image is in use, and by no loop device")
        time.sleep(_PAUSE_S)


def _find_device(image: int) -> tuple[int, str] | None:
    """The loop device that has an image."""
    wanted = os.fstat(image)
    for name in sorted(os.listdir("/sys/block")):
        if not name.startswith("loop") or not os.path.exists(f"/sys/block/{name}/loop"):
            continue
        with suppress(OSError):
            device = os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
            if _backing(device) == (wanted.st_dev, wanted.st_ino):
                return device, f"/dev/{name}"
            os.close(device)
    return None


def _backing(device: int) -> tuple[int, int] | None:
    """Device and inode of what is behind a loop device; None when there is nothing any more."""
    info = bytearray(_INFO_BYTES)
    try:
        fcntl.ioctl(device, _LOOP_GET_STATUS64, info)
    except OSError:
        return None
    encoded, inode = struct.unpack_from("QQ", info)
    # The kernel's own form of a device number. Source: new_encode_dev in include/linux/kdev_t.h.
    return os.makedev(encoded >> 8 & 0xFFF, encoded & 0xFF | encoded >> 12 & 0xFFF00), inode


def _new_device(image: int) -> tuple[int, str]:
    """Raises ``OSError``."""
    for _attempt in range(64):
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
        finally:
            os.close(control)
        device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _configure(device, image)
        except OSError as error:
            os.close(device)
            # Somebody else was faster.
            if error.errno != errno.EBUSY:
                raise
        else:
            return device, path
    raise OSError(errno.EBUSY, "no loop device is free")


def _configure(device: int, image: int) -> None:
    """Raises ``OSError``. Around the page cache where the file system has that: what is in it once is enough."""
    for flags in (_LO_FLAGS_AUTOCLEAR | _LO_FLAGS_DIRECT_IO, _LO_FLAGS_AUTOCLEAR):
        info = bytearray(_INFO_BYTES)
        struct.pack_into("I", info, _FLAGS_AT, flags)
        try:
            fcntl.ioctl(
                device, _LOOP_CONFIGURE, struct.pack("II", image, _SECTOR) + bytes(info) + bytes(_RESERVED_BYTES)
            )
        except OSError as error:
            if error.errno != errno.EINVAL or flags == _LO_FLAGS_AUTOCLEAR:
                raise
        else:
            return


def _used_on_disk(image: int) -> int:
    """As the superblock says."""
    block = os.pread(image, 1024, _SUPERBLOCK_AT)
    if len(block) < 1024 or struct.unpack_from("<H", block, _MAGIC_AT)[0] != _MAGIC:
        raise OSError(errno.EIO, "its image holds no ext4")
    blocks, free, overhead = (struct.unpack_from("<I", block, at)[0] for at in (_BLOCKS_AT, _FREE_AT, _OVERHEAD_AT))
    return max(0, int(blocks - free - overhead)) * _BLOCK
