"""Lays out a tar from a sandbox, which is hostile, in a folder: ``python -m sandgate.sandbox.layer_unpacker``.

Its arguments are the folder, which is empty, the most bytes and the most files; the tar comes on standard input. Prints
how much it was, or ends with exit code 1 and one line that says what is wrong. Before it reads a byte it keeps itself,
where the kernel has Landlock, from every other file of the machine, from its network and from its processes. Without it
the reader alone has to hold; the server's log says so.

The reader is the one that sandboxes have for archives of clients. What is not a file, a folder or a symbolic link is
refused. Nothing is ever reached through a link. Owners and all but one bit of the modes are dropped.
"""

import errno
import json
import os
import resource
import signal
import stat
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from sandgate_agent import calls, landlock, system
from sandgate_agent.file_worker import OperationRefused
from sandgate_agent.laying import Caps, Layout, Parts, refuse
from sandgate_agent.untar import untar

_NO_NEW_PRIVILEGES = 38
_MOST_MEMORY_BYTES = 1024**3
_MOST_CPU_S = 900
_MOST_DEPTH = 64
_PIECE_BYTES = 1 << 20
_PROGRAM, _FILE = 0o755, 0o644
_FAILURES = OSError, tarfile.TarError, ValueError, ArithmeticError, EOFError, MemoryError, RecursionError


def fence(folder: Path, *, needed: bool) -> None:
    """Reach no file from here on but those below the folder, and nobody else.

    A kernel without Landlock cannot see to that, which is an error only where it is ``needed``. Raises ``OSError``.
    """
    calls.run((calls.prepare("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0),))
    if landlock.find_version():
        calls.run((lambda: landlock.restrict([(str(folder), landlock.ALL)], network=False),))
    elif needed:
        raise OSError(errno.ENOSYS, f"this machine's kernel has no Landlock ({landlock.MEND}), which that needs")


class _Layer(Layout):
    """Keeps of modes only what makes a file a program, and of folders no times."""

    def __init__(self, folder: Path, caps: Caps) -> None:
        super().__init__(str(folder), caps)

    @property
    def size(self) -> dict[str, int]:
        """What has been laid out."""
        return {"files": self._entries, "size_bytes": self._bytes}

    def file(self, name: str, mode: int | None, modified_ns: int, size: int, pieces: Iterable[bytes]) -> None:
        kept = _PROGRAM if mode is not None and mode & stat.S_IXUSR else _FILE
        super().file(name, kept, modified_ns, size, pieces)

    def hard_link(self, name: str, other: str) -> None:
        raise refuse(name, f"is another name of {other[:200]!r}, which is not unpacked")

    def _split(self, name: str) -> Parts:
        parts = super()._split(name)
        if len(parts) > _MOST_DEPTH:
            raise refuse(name, f"is more than {_MOST_DEPTH} folders deep")
        return parts


def unpack(archive: IO[bytes], folder: Path, most_bytes: int, most_files: int) -> dict[str, int]:
    """Lay it out; ``files`` and ``size_bytes`` of it. Raises ``OperationRefused``, ``OSError``."""
    caps = Caps(most_files, most_bytes, overwrite=False, outside_links=True)
    layer = _Layer(folder, caps)
    try:
        untar(_pieces(archive), layer, caps)
        return layer.size
    finally:
        layer.close()


def _pieces(archive: IO[bytes]) -> Iterator[bytes]:
    while piece := archive.read(_PIECE_BYTES):
        yield piece


def _flush(folder: Path) -> None:
    """See to it that a machine that loses its power has all of it."""
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    calls.run((calls.prepare("syncfs", top),))
    os.close(top)


def confine(folder: Path, most_bytes: int, *, needs_fence: bool) -> None:
    """Bound this process, have it end with who started it, and :func:`fence` it. Raises ``OSError``."""
    system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_CPU_S, _MOST_CPU_S))
    fence(folder, needed=needs_fence)


def answer(
    folder: Path,
    most_bytes: int,
    unpacking: Callable[[], Mapping[str, Any]],
    *refused: type[Exception],
    needs_fence: bool = False,
) -> int:
    """Confine this process, do it, and print what it came to, or what is wrong; the exit code."""
    failures: tuple[type[Exception], ...] = (*refused, *_FAILURES)
    try:
        confine(folder, most_bytes, needs_fence=needs_fence)
        done = unpacking()
        _flush(folder)
    except failures as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        sys.stderr.write(f"{text or type(error).__name__}\n")
        return 1
    sys.stdout.write(json.dumps(done))
    return 0


def main(folder: Path, most_bytes: int, most_files: int) -> int:
    """Unpack standard input; the exit code."""
    return answer(
        folder, most_bytes, lambda: unpack(sys.stdin.buffer, folder, most_bytes, most_files), OperationRefused
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
