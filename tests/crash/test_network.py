"""Packages are installed from an index of the test's own, and the network outlives a gateway that is killed."""

import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.sandgate_server import ENVIRONMENTS, execute
from tests.crash.server_process import GATEWAY, CrashServer

pytestmark = pytest.mark.needs_root_namespaces

_HOST = "127.0.0.2"
_WHEEL = "greeting-1.0-py3-none-any.whl"
_METADATA = "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n"


def _make_wheel() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr("greeting.py", "text = 'hello from a package'\n")
        wheel.writestr("greeting-1.0.dist-info/METADATA", _METADATA)
        wheel.writestr("greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("greeting-1.0.dist-info/RECORD", "")
    return file.getvalue()


class _Index(BaseHTTPRequestHandler):
    """The simple repository API. Source: PEP 503."""

    wheel = _make_wheel()

    def do_GET(self) -> None:
        """The page of the one package there is, or its file."""
        if self.path == "/simple/greeting/":
            self._answer("text/html", f'<a href="../../files/{_WHEEL}">{_WHEEL}</a>'.encode())
        elif self.path == f"/files/{_WHEEL}":
            self._answer("application/zip", self.wheel)
        else:
            self.send_error(404)

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def index_port() -> Iterator[int]:
    """Where the index is."""
    server = ThreadingHTTPServer((_HOST, 0), _Index)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_packages_from_an_index(index_port: int) -> None:
    """pip installs through the proxy; after a kill of the gateway the same hosts are reached, and no others."""
    index = f"http://{_HOST}:{index_port}/simple"
    install = (
        "import subprocess, sys\n"
        f"ran = subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--user', '--disable-pip-version-check',"
        f" '--index-url', {index!r}, '--trusted-host', {_HOST!r}, 'greeting'], capture_output=True, text=True)\n"
        "print(ran.returncode, ran.stderr)"
    )
    get = (
        "import urllib.request\ntry:\n"
        f"    print(urllib.request.urlopen('{index}/greeting/', timeout=30).status)\n"
        "except OSError as error:\n    print(getattr(error, 'code', error.__class__.__name__))"
    )
    with CrashServer({"SANDGATE_NETWORK_ALLOW_SPECIAL": _HOST}) as server:
        with server.connect() as connection:
            body = {"name": "e", "template": "python", "network": {"allow": [f"{_HOST}:{index_port}"]}}
            path = f"{ENVIRONMENTS}/{connection.expect(201, 'POST', ENVIRONMENTS, body)['environment_id']}"
            environment_id = path.rpartition("/")[2]
            ran = execute(connection, environment_id, {"code": install, "timeout": 60})
            assert ran["stdout"].startswith("0 "), ran
            ran = execute(connection, environment_id, {"code": "import greeting\nprint(greeting.text)"})
            assert ran["stdout"] == "hello from a package\n"
            told = connection.expect(200, "GET", f"{path}/network")
            assert (told["totals"]["allowed"], told["totals"]["denied"]) == (2, 0)
            assert told["connections"][0]["host"] == _HOST
        server.kill(GATEWAY)
        with server.until_ready() as connection:
            assert connection.expect(200, "GET", path)["network"] == {"allow": [f"{_HOST}:{index_port}"]}
            assert execute(connection, environment_id, {"code": get})["stdout"] == "200\n"
            connection.expect(200, "PATCH", path, {"network": {"allow": []}})
            assert execute(connection, environment_id, {"code": get})["stdout"] == "403\n"
            connection.expect(200, "PATCH", path, {"network": None})
            assert execute(connection, environment_id, {"code": get})["stdout"] == "URLError\n"
            assert connection.expect(200, "GET", f"{path}/network")["network"] is None
