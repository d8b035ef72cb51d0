"""What clients can do to a connection, tried with raw bytes on the real server."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import pytest

from tests.e2e.wire_app import ask_and_be_held, held_go, make_app, watched_came, watched_ended
from tests.e2e.wire_server import Wire, WireServer, serving


@pytest.fixture(scope="module")
def server() -> Iterator[WireServer]:
    """A server with deadlines that nobody misses who means to be in time, whatever the machine is busy with."""
    with serving(make_app, max_connections=20) as made:
        yield made


@pytest.fixture
def wire(server: WireServer) -> Iterator[Wire]:
    """A connection; afterwards the server still answers others."""
    with server.connect() as made:
        yield made
    with server.connect() as other:
        other.ask("GET", "/still-there")
        assert other.answer().status == 200


def test_a_connection_serves_many_requests(wire: Wire) -> None:
    """One after the other, each answer with its date and without a word of what serves it."""
    for number in range(3):
        wire.ask("POST", f"/{number}", b"x" * number)
        answer = wire.answer()
        assert json.loads(answer.body) == {"method": "POST", "path": f"/{number}", "body": number}
        assert "date" in answer.headers
        assert "server" not in answer.headers
        assert "connection" not in answer.headers


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    """Also when the first takes longest."""
    wire.send(b"".join(b"GET /%s HTTP/1.1\r\nHost: h\r\n\r\n" % name for name in (b"slow", b"b", b"c")))
    assert [json.loads(wire.answer().body)["path"] for _ in range(3)] == ["/slow", "/b", "/c"]


def test_a_crowd_of_pipelined_requests_is_cut_short(wire: Wire) -> None:
    """Those that were taken are answered, then the connection ends."""
    wire.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n" + b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n" * 500)
    answered = 0
    with contextlib.suppress(EOFError, ConnectionResetError):
        while wire.answer().status == 200:
            answered += 1
    assert 1 <= answered <= 20


def test_head_requests_get_no_body(wire: Wire) -> None:
    """The next answer on the connection is not out of step."""
    wire.ask("HEAD", "/x")
    assert int(wire.answer(to_head=True).headers["content-length"]) > 0
    wire.ask("GET", "/y")
    assert json.loads(wire.answer().body)["path"] == "/y"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX-Long: " + b"x" * 1_000_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(5000)) + b"\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
    ids=["one header", "no end", "many headers", "path"],
)
def test_a_huge_head_is_answered_431(wire: Wire, sent: bytes) -> None:
    """Whatever it is that is huge."""
    wire.send(sent)
    answer = wire.answer()
    assert (answer.status, answer.code) == (431, "HEAD_TOO_LARGE")


MALFORMED = {
    "length and chunks": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    "chunks and length": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
    "two lengths": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "odd length": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc",
    "odd coding": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\nabc",
    "odd chunk": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "space in a name": b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
    "bare line feed": b"GET / HTTP/1.1\nHost: h\n\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
    "garbage": b"\x00\x01\x02\x03garbage\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no path": b"GET HTTP/1.1\r\nHost: h\r\n\r\n",
    "a tunnel": b"CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\n\r\n",
    "bytes in a path": b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_request_is_answered_400_and_closed(wire: Wire, sent: bytes) -> None:
    """Nothing is read two ways, and nothing that follows is taken for another request."""
    wire.send(sent + b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
    answer = wire.answer()
    assert (answer.status, answer.code) == (400, "MALFORMED_REQUEST")
    assert answer.headers["connection"] == "close"
    assert wire.is_closed()


def test_garbage_behind_a_request_does_not_take_its_answer(server: WireServer, wire: Wire) -> None:
    """The request that was good is answered; then the connection ends."""
    ask_and_be_held(wire)
    wire.send(b"\x00garbage\r\n\r\n")
    with server.connect() as other:
        # What came before this was read before this.
        other.ask("GET", "/")
        assert other.answer().status == 200
    held_go.set()
    answer = wire.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert wire.is_closed()


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_large_can_read_its_answer(wire: Wire, chunked: bool) -> None:
    """413 arrives although the client goes on sending."""
    wire.send("POST / HTTP/1.1\r\nHost: h\r\n")
    if chunked:
        wire.send("Transfer-Encoding: chunked\r\n\r\n")
        part = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    else:
        wire.send("Content-Length: 3000000\r\n\r\n")
        part = b"x" * 0x8000
    for _ in range(60):
        wire.send(part)
    answer = wire.answer()
    assert (answer.status, answer.code, answer.headers["connection"]) == (413, "PAYLOAD_TOO_LARGE", "close")
    assert wire.is_closed()


def test_who_asks_before_sending_is_told(wire: Wire) -> None:
    """100 if the body is wanted."""
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert wire.answer().status == 100
    wire.send("abc")
    assert json.loads(wire.answer().body)["body"] == 3


def test_who_asks_before_sending_too_much_is_told(wire: Wire) -> None:
    """413 without 100."""
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n")
    assert wire.answer().status == 413


@pytest.mark.parametrize(
    "headers", ["Connection: Upgrade\r\nUpgrade: websocket", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c"]
)
@pytest.mark.parametrize("body", ["", "abc"])
def test_other_protocols_are_declined_by_answering(wire: Wire, headers: str, body: str) -> None:
    """As if the client had not asked; what follows is not read."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    wire.send(f"POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n{length}\r\n{body}")
    answer = wire.answer()
    assert json.loads(answer.body)["body"] == len(body)
    assert answer.headers["connection"] == "close"
    assert wire.is_closed()


def test_old_clients_are_served(wire: Wire) -> None:
    """HTTP/1.0: one answer, then the end."""
    wire.send("GET / HTTP/1.0\r\n\r\n")
    assert wire.answer().status == 200
    assert wire.is_closed()


@pytest.mark.parametrize(("target", "path"), [("http://elsewhere.test/a?b", "/a"), ("/a%2fb", "/a/b"), ("//a", "//a")])
def test_targets_are_read_as_paths(wire: Wire, target: str, path: str) -> None:
    """Whatever host they name."""
    wire.ask("GET", target)
    assert json.loads(wire.answer().body)["path"] == path


def test_a_half_closed_connection_ends(wire: Wire) -> None:
    """Who says that it has gone is not answered: a client that vanishes looks the same."""
    ask_and_be_held(wire)
    wire.sock.shutdown(socket.SHUT_WR)
    assert wire.is_closed()
    held_go.set()


def test_a_client_that_goes_away_ends_its_work(wire: Wire) -> None:
    """What works for it is told."""
    wire.ask("POST", "/watched", b"{}")
    assert watched_came.wait(60)
    assert not watched_ended.wait(0.1)
    wire.sock.close()
    assert watched_ended.wait(60)


def test_a_reset_in_the_middle_of_a_body_harms_nobody(wire: Wire) -> None:
    """The request is dropped."""
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc")
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    wire.sock.close()


def test_an_answer_that_nobody_reads_blocks_nobody(server: WireServer, wire: Wire) -> None:
    """Others are served meanwhile; the answer is whole when it is read at last."""
    wire.ask("GET", "/large")
    with server.connect() as other:
        other.ask("GET", "/")
        assert other.answer().status == 200
    assert len(wire.answer().body) == 8_000_000


def test_connections_are_bounded(server: WireServer) -> None:
    """One too many is told so at once; when one ends there is room again."""
    held = []
    try:
        while True:
            held.append(server.connect())
            held[-1].ask("GET", "/")
            answer = held[-1].answer()
            if answer.status != 200:
                break
        assert len(held) <= 21
        assert (answer.status, answer.code) == (503, "TOO_MANY_CONNECTIONS")
        assert answer.headers["retry-after"]
    finally:
        for wire in held:
            wire.sock.close()
    deadline = time.monotonic() + 60
    status = 503
    while status == 503 and time.monotonic() < deadline:
        with server.connect() as wire:
            wire.ask("GET", "/")
            status = wire.answer().status
    assert status == 200
