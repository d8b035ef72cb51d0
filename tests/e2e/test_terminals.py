"""Terminals over web sockets, with a client that others have written, against a real server."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from bench.sandgate_server import Server, create

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39]
GUIDE = Path(__file__).resolve().parents[2] / "docs/processes.md"
PAGE = Path(__file__).with_name("page_of_a_terminal.mjs")
PROTOCOL = "sandgate.terminal.v1"
PATIENCE_S = 60.0
ENVIRONMENTS = "/api/v1/sandbox/environments"


@pytest.fixture(scope="module")
def environment_id(server: Server) -> str:
    """An environment for all tests of this file."""
    with server.connect() as connection:
        return create(connection)


@contextmanager
def _opened(
    server: Server, environment_id: str, query: str = "", token: str | None = None, **options: Any
) -> Iterator[ClientConnection]:
    headers = {"Authorization": f"Bearer {server.token if token is None else token}"} if token != "" else {}
    address = f"ws://127.0.0.1:{server.port}{ENVIRONMENTS}/{environment_id}/terminal{query}"
    options.setdefault("max_size", None)
    options.setdefault("open_timeout", PATIENCE_S)
    with connect(address, additional_headers=headers, compression=None, close_timeout=2, **options) as socket:
        yield socket


def _read_until(socket: ClientConnection, wanted: bytes) -> bytes:
    """What the terminal shows, up to something."""
    shown, deadline = b"", time.monotonic() + PATIENCE_S
    while wanted not in shown:
        piece = socket.recv(timeout=max(0.01, deadline - time.monotonic()))
        assert isinstance(piece, bytes)
        shown += piece
    return shown


def _end_of(socket: ClientConnection) -> tuple[int, str]:
    """How the server closed it."""
    with suppress(ConnectionClosed):
        while True:
            socket.recv(timeout=PATIENCE_S)
    return socket.close_code or 0, socket.close_reason or ""


def _ask(server: Server, status: int, method: str, path: str, body: Any = None) -> Any:
    with server.connect() as connection:
        return connection.expect(status, method, path, body)


def _refused(server: Server, environment_id: str, query: str = "", **options: Any) -> tuple[int, str]:
    """How a client without a token of its own is refused."""
    with pytest.raises(InvalidStatus) as refused, _opened(server, environment_id, query, token="", **options):
        pass
    answer = refused.value.response
    return answer.status_code, json.loads(answer.body or b"{}")["error"]["code"]


def test_what_is_typed_is_done_and_shown(either: Server) -> None:
    """As text and as bytes; the terminal is resized on the way, and the end of the shell is that of the socket."""
    with either.connect() as connection:
        environment_id = create(connection)
    with _opened(either, environment_id, "?rows=30&cols=90", subprotocols=[PROTOCOL]) as socket:
        assert socket.subprotocol == PROTOCOL
        socket.send("stty size; echo caf\N{LATIN SMALL LETTER E WITH ACUTE}-$((1+1))\r")
        shown = _read_until(socket, "caf\N{LATIN SMALL LETTER E WITH ACUTE}-2\r\n".encode())
        assert b"30 90\r\n" in shown
        socket.send('\0{"resize": {"rows": 40, "cols": 100}}')
        socket.send(b"stty size; exit 3\r")
        _read_until(socket, b"40 100\r\n")
        assert _end_of(socket) == (1000, "exited with 3")


def test_another_user_finds_no_terminal(server: Server, environment_id: str) -> None:
    """Neither a new one nor that of a process; the answer is word for word that of one that does not exist."""
    started = _ask(server, 201, "POST", f"{ENVIRONMENTS}/{environment_id}/terminal", {"command": "cat"})
    stranger = {"username": "stranger-at-terminals", "password": "a long enough password"}
    made = _ask(server, 201, "POST", "/api/v1/users", stranger)
    token = _ask(server, 200, "POST", "/api/v1/auth/token", stranger)["access_token"]
    none = environment_id[:-4] + "0000"
    for query in ("", f"?process_id={started['process_id']}"):
        said = []
        for asked in (environment_id, none):
            with pytest.raises(InvalidStatus) as refused, _opened(server, asked, query, token=token):
                pass
            answer = refused.value.response
            assert answer.status_code == 404
            error = json.loads(answer.body or b"{}")["error"]
            said.append((error["code"], error["message"].replace(asked, "that one")))
        assert said[0] == said[1]
    process = f"{ENVIRONMENTS}/{environment_id}/processes/{started['process_id']}"
    assert _ask(server, 200, "GET", process)["status"] == "running"
    _ask(server, 200, "DELETE", process)
    _ask(server, 200, "DELETE", f"/api/v1/users/{made['user_id']}")


@pytest.mark.skipif(shutil.which("node") is None, reason="node was not found; install the package nodejs")
def test_a_page_of_xterm_js(either: Server) -> None:
    """The lines of the guide, with what the attach addon does: text, a new size, NUL, bytes, Ctrl-C, the end."""
    (page,) = re.findall(r"^```js\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    origin = f"http://127.0.0.1:{either.port}"
    with either.connect() as connection:
        environment_id = create(connection)
        opened = connection.expect(201, "POST", f"{ENVIRONMENTS}/{environment_id}/terminal", {"rows": 24, "cols": 80})
    page = page.replace("wss://sandgate.example.com", origin.replace("http:", "ws:"))
    asked = json.dumps({"page": page, "url": opened["url"], "origin": origin})
    done = subprocess.run(["node", PAGE, asked], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    assert (seen["protocol"], seen["code"], seen["reason"]) == (PROTOCOL, 1000, "exited with 3")
    assert [size for size in ("24 80\r\n", "40 100\r\n") if size not in seen["shown"]] == []


def test_a_browser_proves_who_it_is_by_a_subprotocol(server: Server, environment_id: str) -> None:
    """From a page of this server; the one that is chosen is not the one with the token."""
    own = f"http://127.0.0.1:{server.port}"
    offered = [PROTOCOL, f"bearer.{server.token}"]
    with _opened(server, environment_id, token="", subprotocols=offered, origin=own) as socket:
        assert socket.subprotocol == PROTOCOL
        socket.send("exit\r")
        assert _end_of(socket) == (1000, "exited with 0")
    for origin in ("http://127.0.0.1.evil.test", "null", f"http://evil.test/?127.0.0.1:{server.port}"):
        assert _refused(server, environment_id, subprotocols=offered, origin=origin) == (403, "FOREIGN_ORIGIN")


def test_a_ticket_opens_one_terminal_once(server: Server, environment_id: str) -> None:
    """And that of its process only; the process is there before and goes on after."""
    path = f"{ENVIRONMENTS}/{environment_id}/terminal"
    asked = _ask(server, 201, "POST", path, {"rows": 10, "cols": 20, "command": "stty size; exec cat"})
    query = asked["url"].partition("/terminal")[2]
    with _opened(server, environment_id, query, token="") as socket:
        _read_until(socket, b"10 20\r\n")
        socket.send("hello\r")
        _read_until(socket, b"hello\r\nhello\r\n")
    process = f"{ENVIRONMENTS}/{environment_id}/processes/{asked['process_id']}"
    assert _ask(server, 200, "GET", process)["status"] == "running"
    assert _refused(server, environment_id, query) == (401, "NOT_AUTHENTICATED")
    position = _ask(server, 200, "GET", f"{process}/output")["position"]
    # Whoever comes again goes on where he was.
    again = f"?process_id={asked['process_id']}&after={position}"
    with _opened(server, environment_id, again) as socket:
        socket.send("again\r")
        assert _read_until(socket, b"again\r\nagain\r\n").startswith(b"again")
        _ask(server, 200, "DELETE", process)
        assert _end_of(socket) == (1000, "killed")


def test_a_shell_ends_with_the_socket_that_it_was_started_for(server: Server, environment_id: str) -> None:
    """With all that it has started, whatever that ignores."""
    path = f"{ENVIRONMENTS}/{environment_id}/processes"
    with _opened(server, environment_id) as socket:
        socket.send("trap '' HUP TERM; (trap '' HUP; sleep 1000) & echo started-$((1+1))\r")
        _read_until(socket, b"started-2\r\n")
        process_id = _ask(server, 200, "GET", path)["processes"][0]["process_id"]
    ended = _ask(server, 200, "POST", f"{path}/{process_id}/wait", {"timeout": 50})
    assert ended["status"] == "killed"


def test_who_does_not_read_holds_the_program_up(server: Server, environment_id: str) -> None:
    """A flood waits for its reader, who gets all of it in order and can still end it."""
    with _opened(server, environment_id, max_queue=1) as socket:
        socket.send("i=0; while :; do i=$((i+1)); echo line-$i; done\r")
        _read_until(socket, b"line-100\r\n")
        processes = f"{ENVIRONMENTS}/{environment_id}/processes"
        process_id = _ask(server, 200, "GET", processes)["processes"][0]["process_id"]
        # What is kept was read up to the position of the reader; what he has not read is bounded.
        deadline, size = time.monotonic() + PATIENCE_S, -1
        while (now := _length(server, f"{processes}/{process_id}")) != size:
            size = now
            time.sleep(0.2)  # waits: for a while in which nothing more may be taken
            assert time.monotonic() < deadline
        shown = _read_until(socket, b"line-3000\r\n")
        numbers = [int(line[5:]) for line in shown.split(b"\r\n")[1:-1] if line.startswith(b"line-")]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        socket.send("\x03exit 5\r")
        assert _end_of(socket) == (1000, "exited with 5")


def _length(server: Server, process: str) -> int:
    position = _ask(server, 200, "GET", f"{process}/output")["position"]
    return int(position.partition("-")[2].partition(".")[0])


@pytest.mark.parametrize(
    ("sent", "code"),
    [("\0{nonsense", 1003), ('\0{"resize": {"rows": 0, "cols": 80}}', 1003), ("x" * 300_000, 1009)],
)
def test_what_is_against_the_rules_ends_it(server: Server, environment_id: str, sent: str, code: int) -> None:
    """With the code for it, and the server goes on."""
    with _opened(server, environment_id) as socket:
        # Whoever is slow is cut off before all of what is too large is sent.
        with suppress(ConnectionClosed):
            socket.send(sent)
        assert _end_of(socket)[0] == code


def test_an_environment_that_ends_closes_its_terminals(server: Server) -> None:
    """Going away is the reason."""
    with server.connect() as connection:
        environment_id = create(connection)
    with _opened(server, environment_id) as socket:
        socket.send("echo ready-$((1+1))\r")
        _read_until(socket, b"ready-2\r\n")
        _ask(server, 200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")
        assert _end_of(socket) == (1001, "lost")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 426),
        ({"Upgrade": "h2c", "Connection": "Upgrade"}, 426),
        ({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "12"}, 426),
        ({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}, 400),
        ({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
          "Sec-WebSocket-Key": "c2hvcnQ="}, 400),
    ],
)  # fmt: skip
def test_what_opens_no_web_socket_is_answered_in_http(
    server: Server, environment_id: str, headers: dict[str, str], status: int
) -> None:
    """And nothing is started for it."""
    before = len(_ask(server, 200, "GET", f"{ENVIRONMENTS}/{environment_id}/processes")["processes"])
    address = f"http://127.0.0.1:{server.port}{ENVIRONMENTS}/{environment_id}/terminal"
    answer = httpx.get(address, headers={"Authorization": f"Bearer {server.token}", **headers}, timeout=PATIENCE_S)
    assert answer.status_code == status
    assert len(_ask(server, 200, "GET", f"{ENVIRONMENTS}/{environment_id}/processes")["processes"]) == before
