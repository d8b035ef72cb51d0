"""Lays out entries of an archive in a folder.

Archives are hostile. No entry is laid out through a link or a step upwards; entries and bytes are counted.
"""

import os
import stat
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from sandgate_agent.file_changes import write_all
from sandgate_agent.file_worker import OperationRefused

INVALID = "ARCHIVE_INVALID"
TOO_LARGE = "ARCHIVE_TOO_LARGE"
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST_NAME = 255
# A path in the archive and that of the folder have to be a path together.
LONGEST_PATH = 3500
# What a file is set to that is not the archive's to give away: whose powers it runs with.
_KEPT_MODE = 0o1777
NANOSECONDS = 10**9
_LATEST_NS = 2**33 * NANOSECONDS

Parts = Tuple[str, ...]


class Caps(NamedTuple):
    """The most that is laid out, and what may be: replacing what is there, and links that lead out of the folder."""

    entries: int
    bytes: int
    overwrite: bool
    outside_links: bool


def refuse(name: str, why: str) -> OperationRefused:
    """The refusal of an archive for an entry of it."""
    return OperationRefused(INVALID, "the entry {!r} {}".format(shown(name), why), shown(name))


def shown(name: str) -> str:
    """A name for people, in a message that has to stay short."""
    return name if len(name) <= 200 else name[:200] + "…"


class Layout:
    """A folder that is filled; ``close`` comes last."""

    def __init__(self, root: str, caps: Caps) -> None:
        self._caps = caps
        self._root = os.open(root, FOLDER_FLAGS)
        self._parent: Tuple[Parts, int] = (), self._root
        self._folders: List[Tuple[str, int, int]] = []
        self._bytes = 0
        self._entries = 0
        self.counts: Dict[str, int] = {"files": 0, "folders": 0, "links": 0}

    def close(self) -> None:
        """Let go of the folders."""
        for descriptor in {self._root, self._parent[1]}:
            os.close(descriptor)

    # What archives hold

    def folder(self, name: str, mode: Optional[int], modified_ns: int) -> None:
        """A folder; one that is there is as good."""
        parts = self._split(name)
        if not parts:
            return
        self._count("folders", name)
        self._make_folder(self._open_parent(parts, name), parts[-1], name)
        self._folders.append(("/".join(parts), 0o755 if mode is None else mode & _KEPT_MODE, modified_ns))

    def file(self, name: str, mode: Optional[int], modified_ns: int, size: int, pieces: Iterable[bytes]) -> None:
        """A file of so many bytes, which come in pieces."""
        parts = self._split(name)
        if not parts:
            raise refuse(name, "has no name")
        self._count("files", name)
        if self._bytes + size > self._caps.bytes:
            raise self._too_large(name)
        parent = self._open_parent(parts, name)
        try:
            descriptor = os.open(parts[-1], _FILE_FLAGS, 0o600, dir_fd=parent)
        except FileExistsError:
            raise refuse(name, "comes twice") from None
        try:
            for piece in pieces:
                self._bytes += len(piece)
                if self._bytes > self._caps.bytes:
                    raise self._too_large(name)
                self._write(descriptor, piece)
            self._end_file(descriptor)
            os.fchmod(descriptor, 0o644 if mode is None else mode & _KEPT_MODE)
            os.utime(descriptor, ns=times(modified_ns))
        except OSError as error:
            raise OSError(error.errno, error.strerror, shown(name)) from None
        finally:
            os.close(descriptor)

    def link(self, name: str, leads_to: str, modified_ns: int) -> None:
        """A symbolic link."""
        parts = self._split(name)
        if not parts or not leads_to or "\0" in leads_to or len(os.fsencode(leads_to)) > 4095:
            raise refuse(name, "is a link that leads nowhere")
        self._count("links", name)
        if not self._caps.outside_links and _leads_out(parts[:-1], leads_to):
            raise refuse(name, "is a link that leads out of the folder, to {!r}".format(shown(leads_to)))
        parent = self._open_parent(parts, name)
        try:
            os.symlink(leads_to, parts[-1], dir_fd=parent)
        except FileExistsError:
            raise refuse(name, "comes twice") from None
        os.utime(parts[-1], ns=times(modified_ns), dir_fd=parent, follow_symlinks=False)

    def hard_link(self, name: str, other: str) -> None:
        """Another name of a file that came before."""
        parts, others = self._split(name), self._split(other)
        if not parts or not others:
            raise refuse(name, "is a link that leads nowhere")
        self._count("links", name)
        source = self._open_folder(others[:-1], other)
        try:
            if not stat.S_ISREG(os.lstat(others[-1], dir_fd=source).st_mode):
                raise refuse(name, "is another name of what is no file")
            parent = self._open_parent(parts, name)
            os.link(others[-1], parts[-1], src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise refuse(name, "is another name of {!r}, which has not come".format(shown(other))) from None
        except FileExistsError:
            raise refuse(name, "comes twice") from None
        finally:
            os.close(source)

    def _set_folders(self, root: int) -> None:
        """Permissions and times of folders, from the innermost on: what is laid out in one changes its time."""
        for path, mode, modified_ns in sorted(self._folders, key=_depth, reverse=True):
            try:
                descriptor = os.open(path, FOLDER_FLAGS, dir_fd=root)
            except OSError:
                # Code has taken it away, or has closed what it is in.
                continue
            try:
                self._set_folder(descriptor, mode, modified_ns)
            finally:
                os.close(descriptor)

    def _set_folder(self, descriptor: int, mode: int, modified_ns: int) -> None:
        os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=times(modified_ns))

    def _write(self, descriptor: int, piece: bytes) -> None:
        write_all(descriptor, piece)

    def _end_file(self, descriptor: int) -> None:
        """All of it has come."""

    # The way to an entry

    def _split(self, name: str) -> Parts:
        """The parts of a name, none for the folder itself. Raises ``OperationRefused``."""
        if "\0" in name:
            raise refuse(name, "has a NUL in its name")
        if name.startswith("/"):
            raise refuse(name, "is absolute")
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if ".." in parts:
            raise refuse(name, "leads upwards")
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in parts) or len(os.fsencode(name)) > LONGEST_PATH:
            raise refuse(name, "has a name that is too long")
        return parts

    def _count(self, kind: str, name: str) -> None:
        self.counts[kind] += 1
        self._count_entry(name)

    def _count_entry(self, name: str) -> None:
        self._entries += 1
        if self._entries > self._caps.entries:
            raise OperationRefused(TOO_LARGE, "there are more than {} entries".format(self._caps.entries), shown(name))

    def _too_large(self, name: str) -> OperationRefused:
        return OperationRefused(
            TOO_LARGE, "what is in it is larger than {} bytes".format(self._caps.bytes), shown(name)
        )

    def _open_parent(self, parts: Parts, name: str) -> int:
        """The folder of an entry, kept open for the next one; made where the archive has not told of it."""
        wanted = parts[:-1]
        known, descriptor = self._parent
        if wanted != known:
            found = self._open_folder(wanted, name, make=True)
            if descriptor != self._root:
                os.close(descriptor)
            self._parent = wanted, found
        return self._parent[1]

    def _open_folder(self, parts: Parts, name: str, *, make: bool = False) -> int:
        """A folder, step by step, so that no step is a link."""
        descriptor = os.dup(self._root)
        try:
            for part in parts:
                if make and self._make_folder(descriptor, part, name):
                    self._count_entry(name)
                inner = os.open(part, FOLDER_FLAGS, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
        except NotADirectoryError:
            os.close(descriptor)
            raise refuse(name, "leads through what is no folder") from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _make_folder(self, parent: int, part: str, name: str) -> bool:
        """Whether it was not there."""
        try:
            os.mkdir(part, 0o755, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(part, dir_fd=parent).st_mode):
                raise refuse(name, "leads through what is no folder") from None
            return False
        return True


def _depth(folder: Tuple[str, int, int]) -> int:
    return folder[0].count("/")


def _leads_out(folder: Parts, leads_to: str) -> bool:
    """Whether a link in a folder of the archive is to what is not in the archive, by the names on its way."""
    depth = len(folder)
    for part in leads_to.split("/"):
        if part not in ("", ".", ".."):
            depth += 1
        elif part == "..":
            depth -= 1
            if depth < 0:
                return True
    return leads_to.startswith("/")


def times(modified_ns: int) -> Tuple[int, int]:
    """As ``utime`` takes them; the time of an archive may be anything."""
    at = max(0, min(modified_ns, _LATEST_NS))
    return at, at
