"""Copies folders from one file system to another, whatever code has put there.

The content goes from file to file within the kernel. Nothing is followed, and nothing but files, folders, links and
named pipes is copied; entries and bytes are counted. Depth takes neither recursion nor descriptors: a folder is opened
by its path from the top, and what has a longer path than can be used is left out and counted. Of a folder only its own
name is remembered, and no longer than there is something in it to be copied.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from sandgate.sandbox.launcher import sparse
from sandgate.sandbox.launcher.beneath import open_folder
from sandgate.sandbox.launcher.removal import empty_folder

_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What a file is set to that is not code's to give away: whose powers it runs with.
_KEPT_MODE = 0o1777
_STICKY = 0o1000
# Of a path that other operations can still use.
_LONGEST_PATH = 3500
_BLOCK = 512
_MOST_AT_ONCE = 1 << 30
# Other names belong to the kernel, or are access lists, which know ids.
_ATTRIBUTES = "user."


class TooMuch(Exception):
    """There is more than may be copied."""


@dataclass(slots=True)
class Copied:
    """What was copied; ``skipped`` is what could not be."""

    files: int = 0
    folders: int = 0
    links: int = 0
    bytes: int = 0
    skipped: int = 0

    def told(self) -> dict[str, int]:
        """By name."""
        return asdict(self)


class _Folder:
    """One that is to be copied, or is being: it is remembered by what is in it."""

    __slots__ = ("above", "accessed_ns", "left", "mode", "modified_ns", "name")

    def __init__(self, name: str, above: "_Folder | None") -> None:
        self.name = name
        self.above = above
        # Those in it that are not done, and itself.
        self.left = 1
        self.mode = self.accessed_ns = self.modified_ns = 0

    @property
    def path(self) -> str:
        """From the top."""
        names = []
        folder: _Folder | None = self
        while folder is not None:
            names.append(folder.name)
            folder = folder.above
        return "/".join(reversed(names))

    def note(self, status: os.stat_result) -> None:
        """What it is to be in the end."""
        self.mode, self.accessed_ns, self.modified_ns = status.st_mode, status.st_atime_ns, status.st_mtime_ns


class TreeCopy:
    """From a folder to another one, by descriptors of both, which stay the caller's."""

    def __init__(self, source: int, target: int, most_entries: int, most_bytes: int) -> None:
        self._source = source
        self._target = target
        self._left_entries = most_entries
        self._left_bytes = most_bytes
        # By number, of files with several names of which some are still to come: how many, and the first.
        self._first_names: dict[int, tuple[int, _Folder, str]] = {}
        self.copied = Copied()

    def run(self, tops: Sequence[str]) -> Copied:
        """Copy what is in the folders ``tops``, which are in both, to where nothing is left. Raises ``OSError``,
        ``TooMuch``.
        """
        for top in tops:
            with _opened(self._target, top) as emptied:
                empty_folder(emptied)
        waiting = [_Folder(top, None) for top in tops]
        while waiting:
            folder = waiting.pop()
            inner = self._copy_folder(folder)
            folder.left += len(inner)
            waiting += inner
            self._finish(folder)
        return self.copied

    def _finish(self, folder: _Folder) -> None:
        """It is copied; settle it, and those above it, of which this was the last.

        The innermost first: what is put into a folder changes its time, and some are closed to their owner.
        """
        done: _Folder | None = folder
        while done is not None:
            done.left -= 1
            if done.left:
                return
            self._settle_folder(done)
            done = done.above

    def _copy_folder(self, folder: _Folder) -> list[_Folder]:
        """Copy what is in a folder; the folders in it, which are made."""
        inner: list[_Folder] = []
        path = folder.path
        try:
            source = open_folder(self._source, path)
        except OSError:
            self.copied.skipped += 1
            return inner
        try:
            with _opened(self._target, path) as target, os.scandir(source) as entries:
                folder.note(os.fstat(source))
                if os.fstat(target).st_uid == os.getuid():
                    _copy_attributes(source, target)
                for entry in entries:
                    self._count_entry()
                    if len(os.fsencode(f"{path}/{entry.name}")) > _LONGEST_PATH:
                        self.copied.skipped += 1
                    elif self._copy_entry(entry, folder, source, target):
                        inner.append(_Folder(entry.name, folder))
        finally:
            os.close(source)
        return inner

    def _count_entry(self) -> None:
        self._left_entries -= 1
        if self._left_entries < 0:
            raise TooMuch

    def _copy_entry(self, entry: "os.DirEntry[str]", folder: _Folder, source: int, target: int) -> bool:
        """Whether it is a folder, which was made."""
        if entry.is_dir(follow_symlinks=False):
            os.mkdir(entry.name, 0o700, dir_fd=target)
            self.copied.folders += 1
            return True
        if entry.is_file(follow_symlinks=False):
            self._copy_file(entry.name, folder, source, target)
        elif entry.is_symlink():
            self._copy_link(entry.name, source, target)
        else:
            self._copy_other(entry.name, source, target)
        return False

    def _copy_file(self, name: str, folder: _Folder, source: int, target: int) -> None:
        try:
            content = os.open(name, _READ_FLAGS, dir_fd=source)
        except OSError:
            self.copied.skipped += 1
            return
        try:
            status = os.fstat(content)
            first = self._find_first(status, folder, name)
            if not stat.S_ISREG(status.st_mode):
                self.copied.skipped += 1
            elif first is not None:
                os.link(first, name, src_dir_fd=self._target, dst_dir_fd=target, follow_symlinks=False)
                self.copied.links += 1
            else:
                self._copy_content(name, content, status, target)
                self.copied.files += 1
        finally:
            os.close(content)

    def _find_first(self, status: os.stat_result, folder: _Folder, name: str) -> str | None:
        """The path of the name that a file with several was copied by; None when this is the first that is found."""
        number = status.st_ino
        if status.st_nlink <= 1 or not stat.S_ISREG(status.st_mode):
            return None
        if number not in self._first_names:
            self._first_names[number] = status.st_nlink - 1, folder, name
            return None
        left, first_folder, first = self._first_names.pop(number)
        if left > 1:
            self._first_names[number] = left - 1, first_folder, first
        return f"{first_folder.path}/{first}"

    def _copy_content(self, name: str, content: int, status: os.stat_result, target: int) -> None:
        made = os.open(name, _WRITE_FLAGS, status.st_mode & 0o777, dir_fd=target)
        try:
            if _BLOCK * status.st_blocks < status.st_size:
                self._send_parts(content, made, status.st_size)
            else:
                self._send(content, made, 0, status.st_size)
            if _copy_attributes(content, made) or status.st_mode & _STICKY:
                os.fchmod(made, status.st_mode & _KEPT_MODE)
            os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(made)

    def _send_parts(self, content: int, made: int, size: int) -> None:
        """What there is of a file that has holes."""
        os.ftruncate(made, size)
        for start, end in sparse.find_parts(content, size):
            os.lseek(made, start, os.SEEK_SET)
            self._send(content, made, start, end)

    def _send(self, content: int, made: int, at: int, end: int) -> None:
        self._left_bytes -= max(0, end - at)
        if self._left_bytes < 0:
            raise TooMuch
        while at < end:
            sent = os.sendfile(made, content, at, min(end - at, _MOST_AT_ONCE))
            if not sent:
                # It has become shorter.
                return
            self.copied.bytes += sent
            at += sent

    def _copy_link(self, name: str, source: int, target: int) -> None:
        try:
            leads_to = os.readlink(name, dir_fd=source)
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
        except OSError:
            self.copied.skipped += 1
            return
        os.symlink(leads_to, name, dir_fd=target)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)
        self.copied.links += 1

    def _copy_other(self, name: str, source: int, target: int) -> None:
        """A named pipe; everything else is left out."""
        status = None
        with suppress(OSError):
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if status is None or not stat.S_ISFIFO(status.st_mode):
            self.copied.skipped += 1
            return
        os.mkfifo(name, status.st_mode & _KEPT_MODE, dir_fd=target)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)
        self.copied.files += 1

    def _settle_folder(self, done: _Folder) -> None:
        """Permissions and times; those that came with the sandbox and are not its user's stay as they are."""
        if not done.mode:
            # It could not be read.
            return
        with _opened(self._target, done.path) as folder:
            if os.fstat(folder).st_uid == os.getuid():
                os.fchmod(folder, done.mode & _KEPT_MODE)
                os.utime(folder, ns=(done.accessed_ns, done.modified_ns))


@contextmanager
def _opened(root: int, path: str) -> Iterator[int]:
    folder = open_folder(root, path)
    try:
        yield folder
    finally:
        os.close(folder)


def _copy_attributes(source: int, target: int) -> bool:
    """Whether there are any; the target may have other permissions then."""
    names = [name for name in os.listxattr(source) if name.startswith(_ATTRIBUTES)]
    if names:
        os.fchmod(target, 0o700)
    for name in names:
        os.setxattr(target, name, os.getxattr(source, name))
    return bool(names)
