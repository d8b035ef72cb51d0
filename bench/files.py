"""Files: how fast one goes up and comes down, and a folder of many as an archive."""

import io
import os
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.client import UnexpectedAnswer
from bench.context import Bench, refer
from bench.figures import Figure, Samples, Target, figure_of
from bench.sandgate_server import Server, create

FILE_MB = 100
FILES, FILE_BYTES = 2000, 4096
TREE_MB = FILES * FILE_BYTES / 1e6
_BLOCK = os.urandom(1 << 20)


def measure(bench: Bench) -> list[Figure]:
    """Each round is the reference on a file system in memory, then the same through the API."""
    content = _BLOCK * FILE_MB
    archive = _archive()
    memory = Path("/dev/shm")
    with Server() as server, server.connect() as connection, tempfile.TemporaryDirectory(dir=memory) as name:
        folder, base = Path(name), f"/api/v1/sandbox/environments/{create(connection)}"
        (folder / "file").write_bytes(content)
        (folder / "tree").mkdir()
        subprocess.run(["tar", "xf", "-", "-C", str(folder / "tree")], input=archive, check=True)
        rounds = bench.count(7, 2)
        return [
            _compare("Files up", f"{FILE_MB} MiB written", FILE_MB * 1.048576, rounds, "cat … | cat > …",
                     lambda: _shell("cat file | cat > copy", folder),
                     lambda: _send(server, "PUT", f"{base}/files/file", content)),
            _compare("Files down", f"{FILE_MB} MiB read", FILE_MB * 1.048576, rounds, "cat … | cat",
                     lambda: _shell("cat file | cat > /dev/null", folder),
                     lambda: _send(server, "GET", f"{base}/files/file")),
            _compare("Archive up", f"a tar of {FILES} files laid out", TREE_MB, rounds, "tar xf - < …",
                     lambda: _shell("rm -rf out; mkdir out; tar cf - -C tree . | tar xf - -C out", folder),
                     lambda: _lay_out(server, base, archive)),
            _compare("Archive down", f"a folder of {FILES} files as tar", TREE_MB, rounds, "tar cf - … | cat",
                     lambda: _shell("tar cf - tree | cat > /dev/null", folder),
                     lambda: _send(server, "GET", f"{base}/archive?path=tree")),
        ]  # fmt: skip


def _compare(
    figure: str, what: str, size_mb: float, rounds: int, name: str, theirs: Callable[[], None], ours: Callable[[], None]
) -> Figure:
    """A row, in MB of content a second."""
    rates: tuple[list[float], list[float]] = [], []
    ours()

    def alternate() -> float:
        for _ in range(rounds):
            for kept, act in zip(rates, (theirs, ours), strict=True):
                started = time.perf_counter()
                act()
                kept.append(size_mb / (time.perf_counter() - started))
        return Samples.of(rates[0]).median

    reference = refer(name, alternate)
    return figure_of(figure, what, "MB/s", Samples.of(rates[1]), Target(), reference)


def _archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number in range(FILES):
            entry = tarfile.TarInfo(f"folder-{number % 20}/file-{number}")
            entry.size = FILE_BYTES
            archive.addfile(entry, io.BytesIO(_BLOCK[:FILE_BYTES]))
    return out.getvalue()


def _shell(command: str, folder: Path) -> None:
    subprocess.run(["sh", "-ec", command], cwd=folder, check=True)


def _lay_out(server: Server, base: str, archive: bytes) -> None:
    """As the reference does: into a folder that is not there."""
    _send(server, "PUT", f"{base}/archive?path=tree", archive)


def _send(server: Server, method: str, path: str, body: bytes = b"") -> None:
    """A request of its own, whose answer is read and thrown away."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {server.token}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head.encode())
        connection.sendall(body)
        buffer = memoryview(bytearray(1 << 20))
        first = bytes(buffer[: connection.recv_into(buffer)])
        if not first.startswith(b"HTTP/1.1 20"):
            raise UnexpectedAnswer(f"{method} {path}: {first[:300]!r}")
        while connection.recv_into(buffer):
            continue
