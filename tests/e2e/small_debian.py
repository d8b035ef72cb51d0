"""A small Debian of the tests' own: this machine's apt and dpkg in a root file system, and packages on the loopback."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.e2e.small_roots import entry, small_root
from tests.e2e.small_wheels import HOST

# What dpkg insists on finding, and what the scripts of packages use.
_PROGRAMS = (
    "apt-get", "bash", "cat", "chmod", "chown", "cp", "diff", "dpkg", "dpkg-deb", "dpkg-query", "dpkg-split", "id",
    "ldconfig", "ln", "mkdir", "mkfifo", "mknod", "mv", "rm", "setsid", "sleep", "start-stop-daemon", "stat", "tar",
    "touch", "xz",
)  # fmt: skip
_METHODS = ("copy", "file", "http", "store")
_FOLDERS = ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/lib/dpkg/info", "var/lib/dpkg/updates")


@dataclass
class Repository:
    """Packages in a folder that is served. What was asked for is in ``asked``."""

    folder: Path
    port: int = 0
    asked: list[str] = field(default_factory=list)
    _index: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        """The line of it in ``sources.list``."""
        return f"deb [trusted=yes] http://{HOST}:{self.port}/ ./"

    @property
    def host(self) -> str:
        """As recipes allow it."""
        return f"{HOST}:{self.port}"

    def add(self, name: str, version: str, files: Mapping[str, str], *, depends: str = "", script: str = "") -> None:
        """Have a package; ``script`` is run by dpkg when its files are there."""
        tree = self.folder / f"tree-{name}-{version}"
        control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.com>\n"
        control += f"Depends: {depends}\n" if depends else ""
        control += "Description: of a test\n"
        for path, text in {**files, "DEBIAN/control": control, "DEBIAN/postinst": script or "#!/bin/sh\n"}.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
            (tree / path).chmod(0o755 if path == "DEBIAN/postinst" or "/bin/" in path else 0o644)
        archive = self.folder / f"{name}_{version}_all.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(archive)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        shutil.rmtree(tree)
        content = archive.read_bytes()
        self._index.append(
            f"{control.rstrip()}\nFilename: ./{archive.name}\nSize: {len(content)}\n"
            f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
        )
        (self.folder / "Packages").write_text("\n".join(self._index))


@contextmanager
def serve_packages(folder: Path) -> Iterator[Repository]:
    """A repository that is there for as long as the block lasts."""
    repository = Repository(folder)

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer, and note it."""
            repository.asked.append(self.path)
            super().do_GET()

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((HOST, 0), partial(Handler, directory=str(folder)))
    repository.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield repository
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def small_debian(prefix: str, version: str, repository: Repository, *more: tuple[tarfile.TarInfo, io.BytesIO]) -> bytes:
    """A tar with an interpreter, apt and dpkg, and the sources of the repository."""
    programs = [str(shutil.which(program)) for program in _PROGRAMS]
    programs += [f"/usr/lib/apt/methods/{method}" for method in _METHODS]
    files = [
        entry("etc/apt/sources.list", f"{repository.source}\n".encode()),
        *(entry(f"usr/share/dpkg/{path.name}", path.read_bytes()) for path in Path("/usr/share/dpkg").glob("*table")),
        entry("var/lib/dpkg/status"), entry("var/lib/dpkg/available"), entry("root/.profile", b"\n"), *more,
    ]  # fmt: skip
    for folder in _FOLDERS:
        member, content = entry(folder)
        member.type = tarfile.DIRTYPE
        files.append((member, content))
    return small_root(prefix, version, [(member, content.getvalue()) for member, content in files], _usr(programs))


def _usr(programs: list[str]) -> list[str]:
    return [os.path.join("/usr", program.removeprefix("/usr/").lstrip("/")) for program in programs]
