"""The root file system of a template that has one of its own: what of it sandboxes are shown, and how it is shown.

The folder is another user's, and what is in it is hostile: it is entered by names alone, and no link is followed.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Made for every sandbox, or for a zygote, and never those of a root file system.
_OWN = {
    "/dev", "/empty", "/env", "/home/user", "/opt/base", "/opt/template", "/proc", "/run", "/sandgate", "/slots",
    "/sys", "/tmp", "/var/empty", "/var/tmp", "/workspace",  # noqa: S108 - names
}  # fmt: skip
# Of these the folders in them are shown, because sandboxes have some of their own beside those.
_OPENED = ("/home", "/opt", "/var")
# Sandboxes have these in any case.
_FOLDERS = (*_OPENED, "/etc", "/usr")
# Each is a mount of every sandbox.
_MOST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class RootFolder:
    """``name`` is that of the folder. ``shown`` are the folders that sandboxes see of it, ``bare`` those that are
    empty, and ``links`` pairs of links and where they lead.
    """

    name: str
    shown: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()


@contextmanager
def _opened(layers: Path, *names: str) -> Iterator[int]:
    """A folder below that of all layers. Raises ``OSError``."""
    folder = os.open(layers, _FLAGS)
    try:
        for name in names:
            above = folder
            folder = os.open(name, _FLAGS, dir_fd=above)
            os.close(above)
        yield folder
    finally:
        os.close(folder)


def look_at(layers: Path | None, name: str) -> RootFolder:
    """Find out what there is to be shown, in a bounded time whatever there is. Raises ``OSError``."""
    if layers is None:
        raise FileNotFoundError(errno.ENOENT, "there are no built templates", name)
    shown: list[str] = []
    bare: list[str] = []
    links: list[tuple[str, str]] = []
    with _opened(layers, name) as top:
        for number, (path, kind, target) in enumerate(_entries(top, "")):
            if number >= _MOST_SHOWN:
                raise OSError(errno.E2BIG, f"its root has more than {_MOST_SHOWN} folders and links", name)
            if kind == "link":
                links.append((path, target))
            elif kind != "file":
                (shown if kind == "full" else bare).append(path)
    return RootFolder(name, tuple(sorted(shown)), tuple(sorted(bare)), tuple(sorted(links)))


def _entries(folder: int, above: str) -> Iterator[tuple[str, str, str]]:
    """Path, kind and target of what is in a folder: ``full`` empty (``bare``) ones, ``link`` and ``file``."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{above}/{entry.name}"
            is_folder = entry.is_dir(follow_symlinks=False)
            if path in _OWN or (path in _FOLDERS and not is_folder):
                continue
            if entry.is_symlink():
                yield path, "link", os.readlink(entry.name, dir_fd=folder)
            elif is_folder:
                yield from _folder_entries(folder, entry.name, path)
            else:
                # Not shown, and counted all the same.
                yield path, "file", ""


def _folder_entries(above: int, name: str, path: str) -> Iterator[tuple[str, str, str]]:
    inner = os.open(name, _FLAGS, dir_fd=above)
    try:
        if path in _OPENED:
            yield from _entries(inner, path)
        else:
            yield path, "full" if _has_entries(inner) else "bare", ""
    finally:
        os.close(inner)


def _has_entries(folder: int) -> bool:
    with os.scandir(folder) as entries:
        return any(True for _entry in entries)


@contextmanager
def open_shown(layers: Path | None, root: RootFolder) -> Iterator[Sequence[tuple[str, str]]]:
    """Pairs of what is to be shown, as a path that leads to it while this lasts, and where. Raises ``OSError``."""
    assert layers is not None  # noqa: S101 - it was looked at
    opened: list[int] = []
    try:
        pairs = []
        for path in root.shown:
            with _opened(layers, root.name, *path.strip("/").split("/")) as folder:
                opened.append(os.dup(folder))
            pairs.append((f"/proc/self/fd/{opened[-1]}", path))
        yield pairs
    finally:
        for descriptor in opened:
            os.close(descriptor)
