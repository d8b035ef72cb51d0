"""A root file system that is laid out layer by layer, in a folder that stands for its root.

Nothing outside of the folder is ever reached: links are followed here, part by part, as they would be with the folder
as root, and nobody else changes it meanwhile. Owners and all but one bit of the modes are dropped, devices left out.
"""

import errno
import os
import shutil
import stat
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_MOST_DEPTH = 64
# Source: path_resolution(7)
_MOST_LINKS = 40
_LONGEST_NAME_BYTES = 255
_PIECE_BYTES = 1 << 20


class Refused(Exception):
    """It cannot be taken; the text is for the user."""


class RootTree:
    """``most_bytes`` and ``most_files`` bound what all layers together write, also what a later one takes away."""

    def __init__(self, folder: Path, most_bytes: int, most_files: int) -> None:
        self._top = str(folder)
        self._most_bytes = most_bytes
        self._most_files = most_files
        self._written = 0
        self._entries = 0
        # What the layer that is laid out has brought so far, with the folders above it.
        self._fresh: set[str] = set()

    def lay_out(self, layer: IO[bytes]) -> None:
        """Lay a tar, compressed or not, over what is there. Raises ``Refused``, ``OSError``, ``tarfile.TarError``.

        Its whiteouts take away what earlier layers brought. Source: the OCI image specification, ``layer.md``.
        """
        self._fresh = {""}
        with _open(layer) as tar:
            while (member := tar.next()) is not None:
                # It would keep every member in memory.
                tar.members = []  # type: ignore[attr-defined]
                self._entries += 1
                if self._entries > self._most_files:
                    raise Refused(f"it has more than {self._most_files} files")
                self._lay_out(tar, member)

    def _lay_out(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = _parts_of(member.name)
        if not parts:
            return
        above = self._resolve(parts[:-1], make=True)
        name = parts[-1]
        if name == _OPAQUE:
            self._clear(above)
        elif name.startswith(_WHITEOUT):
            gone = name.removeprefix(_WHITEOUT)
            if gone in ("", ".", ".."):
                raise Refused(f"{member.name[:200]!a} takes away what is no file in it")
            self._remove_stale(f"{above}/{gone}")
        else:
            self._place(tar, member, above, name)

    def _place(self, tar: tarfile.TarFile, member: tarfile.TarInfo, above: str, name: str) -> None:
        path = f"{self._top}{above}/{name}"
        if member.isdir():
            self._make_room(path, keep_folder=True)
            if not os.path.isdir(path):
                os.mkdir(path, 0o755)
        elif member.issym():
            self._make_room(path)
            os.symlink(member.linkname, path)
        elif member.islnk():
            self._link(member, path)
        elif member.isreg():
            self._make_room(path)
            self._write(tar, member, path)
        else:
            return
        self._note(f"{above}/{name}")

    def _link(self, member: tarfile.TarInfo, path: str) -> None:
        target = _parts_of(member.linkname)
        found = self._top + self._resolve(target[:-1], make=False) + "/" + "".join(target[-1:])
        if not os.path.lexists(found) or os.path.isdir(found):
            raise Refused(f"{member.name[:200]!a} is a link to what is no file in it")
        if found == path:
            return
        self._make_room(path)
        self._link_or_copy(found, path)

    def _link_or_copy(self, source: str, path: str) -> None:
        """Have a file under another name, too."""
        try:
            os.link(source, path, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # A kernel whose Landlock knows no links from one folder to another.
            self._count(os.lstat(source).st_size)
            shutil.copy2(source, path, follow_symlinks=False)

    def _count(self, size: int) -> None:
        """Raises ``Refused``."""
        self._written += size
        if size < 0 or self._written > self._most_bytes:
            raise Refused(f"its files have more than {self._most_bytes} bytes")

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        self._count(member.size)
        content = tar.extractfile(member)
        assert content is not None  # noqa: S101 - it is a file
        mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, mode), "wb") as file:
            while piece := content.read(_PIECE_BYTES):
                file.write(piece)
        os.utime(path, (member.mtime, member.mtime))

    def _make_room(self, path: str, *, keep_folder: bool = False) -> None:
        """What comes later in an archive takes the place of what was there."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(path)
        elif not keep_folder:
            shutil.rmtree(path)

    def _note(self, path: str) -> None:
        while path not in self._fresh:
            self._fresh.add(path)
            path = path.rpartition("/")[0]

    def _clear(self, folder: str) -> None:
        """Take away what earlier layers have left in a folder."""
        for name in os.listdir(self._top + folder):
            self._remove_stale(f"{folder}/{name}")

    def _remove_stale(self, path: str) -> None:
        if not os.path.lexists(self._top + path):
            return
        if path not in self._fresh:
            self._make_room(self._top + path)
        elif os.path.isdir(self._top + path) and not os.path.islink(self._top + path):
            self._clear(path)

    def _resolve(self, parts: Sequence[str], *, make: bool) -> str:
        """The folder that a path leads to, from the root on, without links; made where it is missing.

        Raises ``Refused`` where it leads through what is no folder, or nowhere.
        """
        done: list[str] = []
        todo = deque(parts)
        links = 0
        while todo:
            part = todo.popleft()
            if part in ("", "."):
                continue
            if part == "..":
                del done[-1:]
                continue
            path = "/".join((self._top, *done, part))
            kind = _kind_of(path)
            if kind == stat.S_IFLNK:
                links += 1
                target = os.readlink(path)
                done = [] if target.startswith("/") else done
                todo.extendleft(reversed(target.split("/")))
            elif kind == stat.S_IFDIR or (kind is None and make):
                if kind is None:
                    os.mkdir(path, 0o755)
                done.append(part)
            else:
                raise Refused(f"{'/'.join(parts)[:200]!a} leads to no folder")
            if links > _MOST_LINKS or len(done) > _MOST_DEPTH:
                raise Refused(f"{'/'.join(parts)[:200]!a} leads too far")
        return "".join(f"/{part}" for part in done)

    def find(self, path: str) -> str | None:
        """The file that a path leads to, links followed with the folder as root: where it is on the host, or None."""
        for _number in range(_MOST_LINKS):
            folder, _, name = path.rpartition("/")
            try:
                found = f"{self._top}{self._resolve(folder.split('/'), make=False)}/{name}"
            except Refused:
                return None
            kind = _kind_of(found)
            if kind != stat.S_IFLNK:
                return found if kind == stat.S_IFREG else None
            target = os.readlink(found)
            path = target if target.startswith("/") else f"{folder}/{target}"
        return None

    def put(self, path: str, content: bytes) -> None:
        """Write a file in the place of what is there."""
        parts = _parts_of(path)
        target = f"{self._top}{self._resolve(parts[:-1], make=True)}/{parts[-1]}"
        self._make_room(target)
        Path(target).write_bytes(content)

    def move_files_of_top(self, folder: str) -> None:
        """Have files that are in the root itself elsewhere, with links to them: a root is shown by its folders."""
        for entry in list(os.scandir(self._top)):
            if entry.is_file(follow_symlinks=False):
                target = f"{self._resolve(_parts_of(folder), make=True)}/{entry.name}"
                self._link_or_copy(entry.path, self._top + target)
                os.unlink(entry.path)
                os.symlink(target, entry.path)

    def measure(self) -> dict[str, int]:
        """``files`` and ``size_bytes`` of what is there in the end."""
        known: set[int] = set()
        files, size = 0, 0
        for status in _walk(self._top):
            files += 1
            if stat.S_ISREG(status.st_mode) and status.st_ino not in known:
                known.add(status.st_ino)
                size += status.st_size
        return {"files": files, "size_bytes": size}


def _open(layer: IO[bytes]) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=layer, mode="r|*", errorlevel=2)
    except tarfile.ReadError:
        raise Refused("a part of it is no tar, or compressed otherwise than by gzip, bzip2 or xz") from None


def _walk(folder: str) -> Iterator[os.stat_result]:
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)


def _kind_of(path: str) -> int | None:
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except FileNotFoundError:
        return None


def _parts_of(name: str) -> list[str]:
    """Raises ``Refused``."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or len(parts) > _MOST_DEPTH:
        raise Refused(f"{name[:200]!a} is no path of a file")
    if any(len(os.fsencode(part)) > _LONGEST_NAME_BYTES or "\0" in part for part in parts):
        raise Refused(f"{name[:200]!a} is too long a path")
    return parts
