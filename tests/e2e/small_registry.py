"""A registry of the tests' own on the loopback device: images by tag and digest, tokens, blobs that lie elsewhere."""

import hashlib
import json
import platform
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "127.0.0.1"
TOKEN = "for-everybody"
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class Registry:
    """What it has, and what it was asked for: paths with what ``Authorization`` came with them."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.wants_token = True
        self.asked: list[tuple[str, str]] = []
        self.port = 0
        # Instead of what lies under a digest.
        self.lies: dict[str, bytes] = {}
        self.realm = ""
        self.elsewhere = ""
        self.scheme = "http"

    @property
    def authority(self) -> str:
        """Where it is."""
        return f"{HOST}:{self.port}"

    def keep(self, content: bytes) -> dict[str, Any]:
        """Have a blob; its descriptor."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return {"digest": digest, "size": len(content)}

    def add(self, tag: str, layers: Sequence[bytes], config: Mapping[str, Any]) -> str:
        """An image for this kind of machine, in an index with one for another; the digest of the index."""
        described = {"config": self.keep(json.dumps(config).encode()), "layers": [self.keep(each) for each in layers]}
        own = {**self.keep(json.dumps(described).encode()), "platform": {"os": "linux", "architecture": MACHINE}}
        other = {"digest": f"sha256:{'0' * 64}", "size": 1, "platform": {"os": "linux", "architecture": "other"}}
        digest: str = self.keep(json.dumps({"manifests": [other, own]}).encode())["digest"]
        self.tags[tag] = digest
        return digest


class _Handler(BaseHTTPRequestHandler):
    """The part of the distribution specification that is about reading."""

    registry: Registry

    def do_GET(self) -> None:
        """Answer one request."""
        registry, authorization = self.registry, self.headers.get("Authorization", "")
        registry.asked.append((self.path, authorization))
        if self.path.startswith("/token"):
            self._answer(200, json.dumps({"token": TOKEN}).encode())
            return
        if self.path.startswith("/elsewhere/"):
            self._content(self.path.removeprefix("/elsewhere/"))
            return
        if registry.wants_token and authorization != f"Bearer {TOKEN}":
            realm = registry.realm or f"{registry.scheme}://{registry.authority}/token"
            self._answer(401, b"{}", {"WWW-Authenticate": f'Bearer realm="{realm}",service="registry"'})
            return
        kind, _, which = self.path.removeprefix("/v2/team/image/").partition("/")
        if kind == "blobs":
            place = registry.elsewhere or f"{registry.scheme}://{registry.authority}/elsewhere"
            self._answer(307, b"", {"Location": f"{place}/{which}"})
        else:
            self._content(registry.tags.get(which, which))

    def _content(self, digest: str) -> None:
        content = self.registry.lies.get(digest, self.registry.blobs.get(digest))
        self._answer(404 if content is None else 200, content or b"")

    def _answer(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is called above
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    """Takes connections in the threads that serve them, with their handshakes."""

    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection; who does not believe the certificate is nobody to answer."""
        try:
            talking = request if self.tls is None else self.tls.wrap_socket(request, server_side=True)
        except OSError:
            return
        super().finish_request(talking, client_address)
        if self.tls is not None:
            talking.close()


@contextmanager
def serve_registry(tls: ssl.SSLContext | None = None) -> Iterator[Registry]:
    """One that is there meanwhile."""
    registry = Registry()
    registry.scheme = "http" if tls is None else "https"
    handler = type("Handler", (_Handler,), {"registry": registry})
    with _Server((HOST, 0), handler) as server:
        server.tls = tls
        registry.port = server.server_address[1]
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield registry
        finally:
            server.shutdown()
            serving.join()
