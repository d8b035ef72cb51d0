"""Servers on the loopback of this machine, to be reached by code in sandboxes."""

import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sandgate.core.network import NetworkPolicy, NetworkRules
from sandgate.sandbox.base import Sandbox
from tests.runtime.hosts import Bench, LauncherHost

# Such that no program takes for its own machine's, so that they are asked for through the proxy.
HOST, OTHER = "127.0.0.2", "127.0.0.3"
POLICY = NetworkPolicy(special=f"{HOST},{OTHER}")
GET = """
import urllib.request, urllib.error
def get(url):
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.headers.get("X-Sandgate-Reason")]
    except Exception as error:
        return [0, str(error)]
"""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Say what was asked for, and of whom; without an end if that was asked for."""
        if self.path == "/endless":
            self._talk_on()
            return
        body = f"{self.path} of {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _talk_on(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b"more")
                time.sleep(0.01)  # waits: it talks for long, not fast

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class World:
    """A server on the loopback of this machine."""

    port: int
    host: str = HOST

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.at}/a?b=c"

    @property
    def at(self) -> str:
        """Its address and port."""
        return f"{self.host}:{self.port}"

    @property
    def rules(self) -> NetworkRules:
        """That let it be reached."""
        return NetworkRules.parse([self.at])

    async def is_reached(self, bench: Bench, sandbox: Sandbox) -> bool:
        """Whether code gets an answer from it."""
        answer = await bench.ask(sandbox, f"{GET}answer = get({self.url!r})")
        return bool(answer == [200, f"/a?b=c of {self.at}"])


@contextmanager
def serving(address: str = HOST) -> Iterator[World]:
    """A server that is to be reached at an address."""
    server = ThreadingHTTPServer((address, 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield World(server.server_address[1], address)
    server.shutdown()
    thread.join()
    server.server_close()


@asynccontextmanager
async def joined_to(host: LauncherHost) -> AsyncIterator[Bench]:
    """A runtime whose administrator lets two addresses of loopback be reached."""
    bench = Bench(host, host.runtime(POLICY))
    await bench.runtime.start(bench.on_end)
    try:
        yield bench
    finally:
        for environment_id in bench.made:
            await bench.runtime.destroy(environment_id)
        await bench.runtime.stop(keep_sandboxes=True)
