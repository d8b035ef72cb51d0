"""A package index on the loopback of this machine, with small wheels of its own."""

import base64
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# One that no program takes for its own machine's, so that it is asked for through the proxy.
HOST = "127.0.0.2"


def make_wheel(name: str, version: str, modules: Mapping[str, str], requires: tuple[str, ...] = ()) -> bytes:
    """A wheel of pure Python. Source: the binary distribution format, packaging.python.org."""
    info = f"{name}-{version}.dist-info"
    needed = "".join(f"Requires-Dist: {each}\n" for each in requires)
    files = {
        **modules,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},{_record(text.encode())}\n" for path, text in files.items())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(path, text)
    return buffer.getvalue()


def _record(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"sha256={digest},{len(content)}"


@dataclass
class PackageIndex:
    """What it has, by the names of the wheels, and what was asked for."""

    port: int = 0
    wheels: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The index, as recipes name it."""
        return f"http://{HOST}:{self.port}/simple"

    def add(self, name: str, version: str, modules: Mapping[str, str], requires: tuple[str, ...] = ()) -> None:
        """Have a wheel."""
        self.wheels[f"{name}-{version}-py3-none-any.whl"] = make_wheel(name, version, modules, requires)

    def answer(self, path: str) -> bytes | None:
        """What is at a path. Source: the simple repository API, packaging.python.org."""
        self.asked.append(path)
        kind, _, name = path.strip("/").partition("/")
        if kind == "files":
            return self.wheels.get(name)
        found = [wheel for wheel in self.wheels if wheel.partition("-")[0] == name.replace("-", "_")]
        links = "".join(f'<a href="/files/{each}#sha256={_hex(self.wheels[each])}">{each}</a>\n' for each in found)
        return f"<!DOCTYPE html><html><body>{links}</body></html>".encode() if found else None


def _hex(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def serve_index() -> Iterator[PackageIndex]:
    """An index that is there for as long as the block lasts."""
    index = PackageIndex()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer."""
            body = self._begin()
            self.wfile.write(body or b"")

        def do_HEAD(self) -> None:
            """Answer without a body."""
            self._begin()

        def _begin(self) -> bytes | None:
            body = index.answer(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "text/html" if self.path.startswith("/simple") else "application/zip")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            return body

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    index.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
