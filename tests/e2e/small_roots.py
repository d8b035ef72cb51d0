"""Root file systems of the tests' own: an interpreter of this machine with the libraries that it needs, and a shell."""

import hashlib
import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

_LEFT_OUT = re.compile(
    r"/(test|tests|idlelib|tkinter|lib2to3|distutils|ensurepip|config-.*|turtledemo|site-packages|pydoc_data)$"
    r"|/(_tkinter|_curses|_test|_ctypes_test|_codecs_|nis|readline|_dbm|_gdbm|_sqlite3|ossaudiodev)"
)
# Modules of the interpreter's own that are files by themselves: those that the agent, venv and the tests need.
_KEPT = re.compile(
    r"/(_?(ctypes|json|struct|random|sha\w+|md5|blake2|hashlib|bisect|math|socket|select|pickle|posixsubprocess"
    r"|datetime|zlib|bz2|lzma|grp|fcntl|resource|heapq|opcode|statistics|queue|contextvars|asyncio|typing|ssl"
    r"|uuid|mmap|binascii|array|termios|syslog|unicodedata))\.[^/]*$"
)
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")


@cache
def libraries(*programs: str) -> tuple[str, ...]:
    """What programs need to be loaded, the loader among it."""
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    return tuple(sorted(set(_LIBRARY.findall(said))))


def _interpreter_files(prefix: Path, version: str) -> Iterator[tuple[str, Path]]:
    yield f"usr/local/bin/python{version}", prefix / "bin" / f"python{version}"
    for folder, folders, names in os.walk(prefix / "lib" / f"python{version}"):
        folders[:] = [name for name in folders if not _LEFT_OUT.search(f"/{name}")]
        for name in names:
            is_left_out = _LEFT_OUT.search(f"/{name}") or ("lib-dynload" in folder and not _KEPT.search(f"/{name}"))
            if ".opt-" not in name and not is_left_out:
                path = Path(folder) / name
                yield f"usr/local/{path.relative_to(prefix)}", path


def small_root(
    prefix: str, version: str, more: Sequence[tuple[tarfile.TarInfo, bytes]] = (), programs: Sequence[str] = ()
) -> bytes:
    """A tar with the interpreter of this prefix as ``/usr/local/bin/python3``, with ``sh``, and more files.

    And ``programs`` of this machine, at the places that they have there.
    """
    files = list(_interpreter_files(Path(prefix), version))
    linked = [str(path) for name, path in files if ".so" in name or "/bin/" in name]
    shells = [("usr/bin/sh", Path(os.path.realpath("/bin/sh")))]
    shells += [(_place_of(program), Path(os.path.realpath(program))) for program in programs]
    for library in libraries(*linked, *(str(path) for _name, path in shells)):
        # Where the loader and all that it loads look: lib and lib64 are links, as they are in any root of today.
        place = library.removeprefix("/usr").lstrip("/") if library.startswith(("/usr/", "/lib")) else ""
        files.append((f"usr/{place or 'lib/' + Path(library).name}", Path(os.path.realpath(library))))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("bin", "lib", "lib64", "sbin"):
            link, target = name, f"usr/{name}"
            add(tar, link, target=target)
        for name, path in dict([*files, *shells]).items():
            member = tar.gettarinfo(str(path), name)
            member.type, member.linkname = tarfile.REGTYPE, ""
            with path.open("rb") as file:
                tar.addfile(member, file)
        add(tar, "usr/local/bin/python3", target=f"python{version}")
        for member, content in more:
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _place_of(program: str) -> str:
    """Below ``usr``, as on every machine of today."""
    return program.lstrip("/") if program.startswith("/usr/") else f"usr{program}"


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", target: str = "") -> None:
    """A file, or a link."""
    tar.addfile(*entry(name, content, target))


def entry(name: str, content: bytes = b"", target: str = "") -> tuple[tarfile.TarInfo, io.BytesIO]:
    """The same, to be added."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o755, 1_000_000_000
    if target:
        member.type, member.linkname = tarfile.SYMTYPE, target
    return member, io.BytesIO(content)


def sha256(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()
