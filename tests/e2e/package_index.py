"""An index of packages on the loopback of this machine, which serves what is installed beside the tests as wheels."""

import csv
import hashlib
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: One that no program takes for its own machine's, so that it is asked for through the proxy.
HOST = "127.0.0.2"
# Written by whoever installs; made anew by pip.
_OF_THE_INSTALLER = {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json"}


def _with_needs(names: Sequence[str]) -> dict[str, metadata.Distribution]:
    """Distributions and all that they need here."""
    found: dict[str, metadata.Distribution] = {}
    left = list(names)
    while left:
        name = canonicalize_name(left.pop())
        if name not in found:
            found[name] = metadata.distribution(name)
            needs = map(Requirement, found[name].requires or ())
            left += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def _wheel_name(distribution: metadata.Distribution) -> str:
    """As it was called. Source: the specification of the binary distribution format, "File name convention"."""
    lines = (distribution.read_text("WHEEL") or "").splitlines()
    tags = [line.removeprefix("Tag: ").split("-") for line in lines if line.startswith("Tag: ")]
    compressed = [".".join(dict.fromkeys(part)) for part in zip(*tags, strict=True)]
    return (
        "-".join([canonicalize_name(distribution.name).replace("-", "_"), distribution.version, *compressed]) + ".whl"
    )


def _is_packed(path: metadata.PackagePath) -> bool:
    """Whether a file goes into the wheel: their own tests and what was compiled here are most of the files."""
    parts = path.parts
    return not ({"..", "tests", "__pycache__"} & set(parts) or path.name in _OF_THE_INSTALLER)


def _pack(distribution: metadata.Distribution, folder: Path) -> Path:
    """The wheel of an installed distribution, not compressed."""
    wheel = folder / _wheel_name(distribution)
    files = [path for path in distribution.files or () if _is_packed(path)]
    (information,) = {path.parts[0] for path in files if path.name == "METADATA" and len(path.parts) == 2}
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in files:
            archive.write(path.locate(), str(path))
        with archive.open(f"{information}/RECORD", "w") as record:
            rows = [
                (str(path), f"{path.hash.mode}={path.hash.value}" if path.hash else "", path.size) for path in files
            ]
            lines: list[str] = []
            csv.writer(_Lines(lines)).writerows([*rows, (f"{information}/RECORD", "", "")])
            record.write("".join(lines).encode())
    return wheel


class _Lines:
    """Lets a writer of CSV write into a list."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wheels: Mapping[str, Path]

    def do_HEAD(self) -> None:
        """As much as says whether it is there."""
        self.do_GET()

    def do_GET(self) -> None:
        """A page of the index, or a file. Source: PEP 503."""
        kind, _, name = self.path.strip("/").partition("/")
        wheel = self.wheels.get(name if kind == "simple" else name.partition("-")[0].replace("_", "-"))
        if wheel is None:
            self.send_error(404)
        elif kind == "simple":
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            self._answer("text/html", f'<a href="/files/{wheel.name}#sha256={digest}">{wheel.name}</a>'.encode())
        else:
            self._answer("application/octet-stream", wheel.read_bytes())

    def _answer(self, kind: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def package_index(folder: Path, *names: str) -> Iterator[str]:
    """Serves these distributions and all that they need; its address."""
    wheels = {name: _pack(found, folder) for name, found in _with_needs(names).items()}
    handler = type("Handler", (_Handler,), {"wheels": wheels})
    server = ThreadingHTTPServer((HOST, 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}/simple/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
