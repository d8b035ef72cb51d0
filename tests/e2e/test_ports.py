"""What listens in an environment, through a real server: web sockets, floods, and who goes away."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from bench.sandgate_server import Server, create
from tests.e2e.conftest import DOMAIN

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39]
ENVIRONMENTS = "/api/v1/sandbox/environments"
PATIENCE_S = 60.0

_CODE = """
import base64, hashlib, socket, struct, threading

def exactly(connection, size):
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data

def frame(text):
    return b"\\x81" + (bytes([len(text)]) if len(text) < 126 else b"\\x7e" + struct.pack("!H", len(text))) + text

def fields_of(head):
    fields = dict(line.split(": ", 1) for line in head.split("\\r\\n")[1:] if line)
    return {name.lower(): value for name, value in fields.items()}

def show(connection, path, names):
    body = "|".join([path, names["host"], *(names.get(name, "none") for name in ("authorization", "cookie"))])
    head = "HTTP/1.1 200 OK\\r\\nSet-Cookie: theirs=1\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
    connection.sendall((head + body).encode())

def speak(connection, head):
    names = fields_of(head)
    key = names["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    answer = "HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
    answer += "Set-Cookie: a=b\\r\\n"
    said = "|".join([head.split(" ")[1], names.get("authorization", "none"), names["host"]])
    connection.sendall((answer + "Sec-WebSocket-Accept: " + accept + "\\r\\n\\r\\n").encode() + frame(said.encode()))
    while True:
        first, second = exactly(connection, 2)
        size = second & 127
        if size == 126:
            size = struct.unpack("!H", exactly(connection, 2))[0]
        mask = exactly(connection, 4)
        text = bytes(byte ^ mask[place % 4] for place, byte in enumerate(exactly(connection, size)))
        if first & 15 == 8:
            connection.sendall(b"\\x88" + bytes([len(text)]) + text)
            return
        connection.sendall(frame(text.upper()))

def serve(connection):
    head = ""
    try:
        while not head.endswith("\\r\\n\\r\\n"):
            head += exactly(connection, 1).decode()
        path = head.split(" ")[1]
        if path == "/flood":
            connection.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
            while True:
                connection.sendall(b"x" * 65536)
        elif path == "/half":
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\nhalf")
        elif path == "/same":
            connection.sendall(b"HTTP/1.1 304 Same\\r\\nContent-Length: 9\\r\\n\\r\\n")
        elif path.startswith("/show"):
            show(connection, path, fields_of(head))
        elif path == "/refuse" or "upgrade: websocket" not in head.lower():
            connection.sendall(b"HTTP/1.1 403 No\\r\\nContent-Type: text/plain\\r\\nContent-Length: 2\\r\\n\\r\\nno")
        else:
            speak(connection, head)
    except OSError:
        open("gone", "a").write(head.split(" ")[1] + "\\n")
    finally:
        connection.close()

server = socket.create_server(("127.0.0.1", 8000))
print("there", flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


def _ask(server: Server, status: int, method: str, path: str, body: Any = None) -> Any:
    with server.connect() as connection:
        return connection.expect(status, method, path, body)


@pytest.fixture(scope="module", params=["standard", pytest.param("gvisor", marks=pytest.mark.needs_gvisor)])
def base(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """The port of a server that runs in an environment of each class that has a network of its own."""
    with server.connect() as connection:
        environment_id = create(connection, isolation=request.param)
        path = f"{ENVIRONMENTS}/{environment_id}"
        connection.expect(200, "POST", f"{path}/execute", {"code": _CODE, "detach": True, "timeout": 300})
        deadline = time.monotonic() + PATIENCE_S
        probe = "print(any(':1F40' in line for line in open('/proc/net/tcp')))"
        while connection.expect(200, "POST", f"{path}/execute", {"code": probe})["stdout"] != "True\n":
            assert time.monotonic() < deadline
        yield f"{path}/ports/8000"
        connection.expect(200, "DELETE", path)


def _opened(server: Server, path: str, token: str | None) -> ClientConnection:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return connect(
        f"ws://127.0.0.1:{server.port}{path}", additional_headers=headers, open_timeout=PATIENCE_S, close_timeout=2
    )


def test_a_web_socket_is_passed_on(server: Server, base: str) -> None:
    """Bytes pass as they are, what came with the handshake first; the token stays outside."""
    with _opened(server, f"{base}/chat?room=1", server.token) as opened:
        assert opened.recv(timeout=PATIENCE_S) == "/chat?room=1|none|localhost:8000"
        assert opened.response is not None
        assert "set-cookie" not in opened.response.headers
        for text in ("hello", "x" * 5000):
            opened.send(text)
            assert opened.recv(timeout=PATIENCE_S) == text.upper()


def test_by_a_link(server: Server, base: str) -> None:
    """Whoever has it needs no token."""
    link = _ask(server, 201, "POST", base.replace("/ports/", "/port-links/"), {})["link_path"]
    with _opened(server, f"{link}chat", None) as opened:
        assert opened.recv(timeout=PATIENCE_S) == "/chat|none|localhost:8000"


Asked = tuple[int, HTTPMessage, bytes]


def _ask_name(server: Server, name: str, path: str, **headers: str) -> Asked:
    """Names of the tests' own lead nowhere: the request is sent to the server, as their owner's DNS would."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    with closing(connection):
        connection.request("GET", path, headers={"Host": f"{name}:{server.port}", **headers})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def _open_name(server: Server, name: str, **headers: str) -> ClientConnection:
    sock = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
    url = f"ws://{name}:{server.port}/chat"
    return connect(url, sock=sock, additional_headers=headers, open_timeout=PATIENCE_S, close_timeout=2)


def _begin(server: Server, base: str, name: str) -> str:
    """The cookie that a link becomes, which is asked where it says."""
    url = urlsplit(_ask(server, 201, "POST", base.replace("/ports/", "/port-links/"), {})["link_url"])
    assert (url.scheme, url.netloc) == ("http", f"{name}:{server.port}")
    status, headers, _body = _ask_name(server, url.hostname or "", f"{url.path}?{url.query}&a=b")
    assert (status, headers["Location"]) == (303, "/?a=b")
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(attributes)
    return str(cookie)


def test_a_name_of_its_own(server: Server, base: str) -> None:
    """With a token, or with the cookie that a link becomes; both stay outside, and what is set inside is set."""
    name = f"8000-{base.split('/')[5]}.{DOMAIN}"
    assert _ask_name(server, name, "/show")[0] == 401
    cookie = _begin(server, base, name)
    token = f"Bearer {server.token}"
    for headers, passed in (({"Authorization": token}, "none"), ({"Cookie": f"{cookie}; mine=1"}, "mine=1")):
        status, answered, body = _ask_name(server, name, "/show?a=b", **headers)
        assert (status, body.decode()) == (200, f"/show?a=b|localhost:8000|none|{passed}")
        assert (answered["Set-Cookie"], answered["X-Sandgate-Port"]) == ("theirs=1", "8000")
        assert answered["Content-Security-Policy"] is None
        with _open_name(server, name, **headers) as opened:
            assert opened.recv(timeout=PATIENCE_S) == "/chat|none|localhost:8000"
            opened.send("hello")
            assert opened.recv(timeout=PATIENCE_S) == "HELLO"


def test_a_name_lets_nobody_else_in(server: Server, base: str) -> None:
    """Not without a credential, not with that of another port, and no page of another name; the API is not there."""
    environment_id = base.split("/")[5]
    name, other = (f"{port}-{environment_id}.{DOMAIN}" for port in (8000, 8001))
    cookie = _begin(server, base, name)
    for headers, status in (
        ({}, 401), ({"Cookie": cookie, "Origin": f"http://{other}"}, 403), ({"Cookie": "sandgate-port=x.y"}, 404),
    ):  # fmt: skip
        assert _ask_name(server, name, "/show", **headers)[0] == status
        with pytest.raises(InvalidStatus) as refused, _open_name(server, name, **headers):
            pass
        assert refused.value.response.status_code == status
    assert _ask_name(server, other, "/show", Cookie=cookie)[0] == 404
    token = f"Bearer {server.token}"
    assert _ask_name(server, f"elsewhere.{DOMAIN}", "/healthz", Authorization=token)[0] == 404
    status, answered, _body = _ask_name(server, name, "/api/v1/me", Authorization=token)
    assert (status, answered["X-Sandgate-Port"]) == (403, "8000")
    assert _ask_name(server, "sandgate.test", "/api/v1/me", Authorization=token)[0] == 200


def test_one_that_is_refused(server: Server, base: str) -> None:
    """By the server inside, whose answer is passed out, and by this one."""
    for path, token, status in ((f"{base}/refuse", server.token, 403), (f"{base}/chat", None, 401)):
        with pytest.raises(InvalidStatus) as refused, _opened(server, path, token):
            pass
        assert refused.value.response.status_code == status


def test_answers_that_break_off(server: Server, base: str) -> None:
    """Their client sees it, and the log is not theirs to fill. Of one without a body the length is no promise."""
    said = len(server.log.read_text())
    with pytest.raises(http.client.IncompleteRead) as cut, _asked(server, f"{base}/half") as connection:
        connection.getresponse().read()
    assert cut.value.partial == b"half"
    with _asked(server, f"{base}/same") as connection:
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (304, b"")
    assert "Traceback" not in server.log.read_text()[said:]


@contextmanager
def _asked(server: Server, path: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    with closing(connection):
        connection.request("GET", path, headers={"Authorization": f"Bearer {server.token}"})
        yield connection


def _gone(server: Server, base: str) -> str:
    path = base.rpartition("/ports/")[0]
    code = "import os\nprint(open('gone').read() if os.path.exists('gone') else '')"
    return str(_ask(server, 200, "POST", f"{path}/execute", {"code": code})["stdout"])


def _until_gone(server: Server, base: str, path: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while path not in _gone(server, base):
        assert time.monotonic() < deadline


def test_who_goes_away(server: Server, base: str) -> None:
    """The server inside learns of it, by a web socket and in the middle of an answer."""
    with suppress(ConnectionClosed), _opened(server, f"{base}/left", server.token) as opened:
        opened.recv(timeout=PATIENCE_S)
        opened.socket.shutdown(socket.SHUT_RDWR)
    _until_gone(server, base, "/left")


def test_a_flood_that_nobody_reads(server: Server, base: str) -> None:
    """It waits where it comes from: the gateway holds next to nothing of it, and answers others meanwhile."""
    gateways = [int(pid.name) for pid in Path("/proc").iterdir() if pid.name.isdigit() and _is_gateway(pid, server)]
    assert len(gateways) == 1
    before = sum(map(_memory, gateways))
    head = f"GET {base}/flood HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n\r\n"
    readers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(8)]
    for reader in readers:
        reader.sendall(head.encode())
        assert reader.recv(64).startswith(b"HTTP/1.1 200")
    began = time.monotonic()
    for _each in range(10):
        assert json.loads(json.dumps(_ask(server, 200, "GET", base.rpartition("/ports/")[0])))["status"] == "running"
    assert time.monotonic() - began < PATIENCE_S
    assert sum(map(_memory, gateways)) - before < 64 * 1024 * 1024
    for reader in readers:
        reader.close()
    _until_gone(server, base, "/flood")


def _is_gateway(process: Path, server: Server) -> bool:
    with suppress(OSError):
        own = str(server.folder).encode() in (process / "environ").read_bytes()
        return own and (process / "comm").read_text().strip() == "sg-gateway"
    return False


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
