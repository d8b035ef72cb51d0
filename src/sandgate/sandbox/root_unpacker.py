"""Lays out a root file system that a user has brought, in a folder: ``python -m sandgate.sandbox.root_unpacker``.

Its arguments are the folder, which is empty, the most bytes and the most files, and names of programs to look for; the
archive, which is hostile, is the file on standard input: a tar of a root file system, or one of an image. With
``--places=PATH`` before the names it is never that of an image and may come in a pipe. Prints what it came to, or ends
with exit code 1 and one line that says what is wrong. It follows links by itself, and libraries unpack the archive
before that: where the kernel has no Landlock to keep it in the folder, it refuses.
"""

import bz2
import gzip
import lzma
import re
import sys
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from sandgate.sandbox import layer_unpacker
from sandgate.sandbox.image_archive import ImageArchive
from sandgate.sandbox.root_tree import Refused, RootTree

# Needed by tarfile, which would look for it when no file of the interpreter's can be read any more.
_NEEDED = bz2, gzip
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# What environments say for themselves.
_NOT_TAKEN = {"HOME", "LOGNAME", "OLDPWD", "PWD", "USER", "VIRTUAL_ENV"}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MOST_ENV_BYTES = 8192
_MOST_VARIABLES = 64
_LONGEST_PATH, _MOST_PARTS, _LONGEST_PART = 512, 32, 255
_PLACES = "--places="
_FILES_OF_TOP = "/usr/lib/sandgate-top"
_LONGEST_ETC_BYTES = 1024**2
# Environments have a user of their own, who is looked up by programs.
_ACCOUNTS = (
    ("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", b"user:x:1000:1000:user:/home/user:/bin/sh\n", b"1000"),
    ("/etc/group", b"root:x:0:\n", b"user:x:1000:\n", b"1000"),
)
_HOSTS = b"127.0.0.1 localhost\n::1 localhost\n"


def unpack(
    archive: IO[bytes],
    folder: Path,
    most_bytes: int,
    most_files: int,
    programs: Sequence[str] = ("python3",),
    places: str | None = None,
) -> dict[str, Any]:
    """Lay it out; how much it is, and what it says. Raises ``Refused``, ``OSError``, ``tarfile.TarError``.

    With ``places``, where its programs are, it is no image.
    """
    tree = RootTree(folder, most_bytes, most_files)
    config: Mapping[str, Any] = {}
    if places is None:
        config = _lay_out(tree, archive)
    else:
        tree.lay_out(archive)
    tree.move_files_of_top(_FILES_OF_TOP)
    _complete_etc(tree)
    env = _read_env(config)
    if places:
        env["PATH"] = places
    path = env.setdefault("PATH", _PATH).split(":")
    found = {name: place for name in programs if (place := _find_program(tree, name, path)) is not None}
    return {**tree.measure(), "env": env, "folder": _read_folder(config), "programs": found}


def _lay_out(tree: RootTree, archive: IO[bytes]) -> Mapping[str, Any]:
    """An archive of either kind; the configuration of an image."""
    with tarfile.open(fileobj=archive, mode="r:*", errorlevel=2) as tar:
        image = ImageArchive.recognize(tar)
        if image is not None:
            config, layers = image.read()
            for layer in layers:
                tree.lay_out(layer)
            return config
    archive.seek(0)
    tree.lay_out(archive)
    return {}


def _complete_etc(tree: RootTree) -> None:
    for path, ordinary, own, number in _ACCOUNTS:
        place = tree.find(path)
        text = ordinary
        if place is not None:
            with open(place, "rb") as file:
                text = file.read(_LONGEST_ETC_BYTES)
        if not any(line.split(b":")[2:3] == [number] for line in text.splitlines()):
            tree.put(path, text.rstrip(b"\n") + b"\n" + own)
    tree.put("/etc/hosts", _HOSTS)
    tree.put("/etc/resolv.conf", b"")


def _read_env(config: Mapping[str, Any]) -> dict[str, str]:
    """The variables of an image's configuration, those that are some."""
    stated = _own_part(config).get("Env")
    pairs = [text.partition("=") for text in stated if isinstance(text, str)] if isinstance(stated, list) else []
    env = {name: value for name, _, value in pairs if _VARIABLE.fullmatch(name) and "\0" not in value}
    env = {name: value for name, value in env.items() if name not in _NOT_TAKEN}
    if (
        len(env) > _MOST_VARIABLES
        or sum(len(f"{name}{value}".encode()) for name, value in env.items()) > _MOST_ENV_BYTES
    ):
        raise Refused(f"it has more than {_MOST_VARIABLES} variables, or more than {_MOST_ENV_BYTES} bytes of them")
    return env


def _read_folder(config: Mapping[str, Any]) -> str:
    """The folder that its programs begin in; empty where it says none that is one."""
    stated = _own_part(config).get("WorkingDir")
    if not isinstance(stated, str) or not stated.startswith("/") or len(stated) > _LONGEST_PATH or "\0" in stated:
        return ""
    return _plain(stated) or ""


def _plain(path: str) -> str | None:
    """A path without what means nothing in it; None for one that is no plain one, or too long."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or len(parts) > _MOST_PARTS or any(len(part.encode()) > _LONGEST_PART for part in parts):
        return None
    return "".join(f"/{part}" for part in parts)


def _own_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    part = config.get("config")
    return part if isinstance(part, dict) else {}


def _find_program(tree: RootTree, name: str, places: Sequence[str]) -> str | None:
    for place in places:
        path = _plain(f"{place}/{name}") if place.startswith("/") else None
        found = None if path is None else tree.find(path)
        if found is not None and Path(found).stat().st_mode & 0o100:
            return path
    return None


def main(folder: Path, most_bytes: int, most_files: int, programs: Sequence[str]) -> int:
    """Unpack standard input; the exit code."""
    places = None
    if programs and programs[0].startswith(_PLACES):
        places, programs = programs[0].removeprefix(_PLACES), programs[1:]
    return layer_unpacker.answer(
        folder,
        most_bytes,
        lambda: unpack(sys.stdin.buffer, folder, most_bytes, most_files, programs, places),
        Refused,
        zlib.error,
        lzma.LZMAError,
        needs_fence=True,
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
