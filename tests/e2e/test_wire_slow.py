"""Clients that take their time, to send and to read, on the real server."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.e2e.wire_app import ask_and_be_held, held_go, large_sent, make_app
from tests.e2e.wire_server import PATIENCE_S, Wire, WireServer, serving


@pytest.fixture(scope="module")
def strict() -> Iterator[WireServer]:
    """A server with a short deadline for heads, for those who miss it."""
    with serving(make_app, head_timeout_s=1.0) as made:
        yield made


def _known(strict: WireServer) -> Wire:
    """A connection that was answered before, so that the next head on it is timed from its own first byte."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        wire = strict.connect()
        wire.ask("GET", "/")
        if wire.answer().status == 200:
            return wire
        # The machine was too busy for a head that is due so soon.
        wire.sock.close()
        assert time.monotonic() < deadline


@pytest.fixture
def unknown(strict: WireServer) -> Iterator[Wire]:
    """A connection to the strict server whose first head is due; afterwards the server still answers others."""
    with strict.connect() as made:
        yield made
    _known(strict).sock.close()


@pytest.fixture
def known(strict: WireServer) -> Iterator[Wire]:
    """The same, after its first answer."""
    with _known(strict) as made:
        yield made
    _known(strict).sock.close()


@pytest.mark.parametrize("sent", ["", "GET / HT", "GET / HTTP/1.1\r\nHost: h\r\nX-Long: "])
def test_a_slow_head_is_answered_408(unknown: Wire, sent: str) -> None:
    """Also one that never begins, and one that arrives byte by byte."""
    unknown.send(sent)
    begun = time.monotonic()
    answer = unknown.answer()
    assert (answer.status, answer.code, answer.headers["connection"]) == (408, "REQUEST_TIMEOUT", "close")
    assert answer.headers["x-request-id"]
    assert unknown.is_closed()
    assert time.monotonic() - begun < 40
    assert time.monotonic() - unknown.connected_at > 0.2, "it was given the time that it has"


def test_a_head_that_dribbles_is_still_slow(unknown: Wire) -> None:
    """The deadline is for the whole head, not for each byte."""
    stop = threading.Event()

    def dribble() -> None:
        unknown.send("GET / HTTP/1.1\r\nX: ")
        while not stop.wait(0.02):
            try:
                unknown.send("x")
            except OSError:
                return

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        assert unknown.answer().code == "REQUEST_TIMEOUT"
    finally:
        stop.set()
        thread.join()


def test_the_deadline_of_a_head_begins_anew_with_each_request(known: Wire) -> None:
    """A second head on the connection is timed like the first."""
    known.send("GET / HT")
    assert known.answer().code == "REQUEST_TIMEOUT"


def test_a_long_body_that_keeps_coming_is_waited_for() -> None:
    """However much longer than its deadline it takes: the deadline is for who holds a connection and sends nothing."""
    for _attempt in range(20):
        answer = None
        with (
            serving(make_app, body_timeout_s=1.5) as server,
            server.connect() as wire,
            contextlib.suppress(ConnectionError),
        ):
            late_s, sent_at = 0.0, time.monotonic()
            wire.send("POST /long HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n")
            for _ in range(9):
                wire.send("x" * 10_000)
                time.sleep(0.25)  # waits: the time that a slow line takes
                late_s, sent_at = late_s + time.monotonic() - sent_at - 0.25, time.monotonic()
            answer = wire.answer()
        if late_s < 0.5 or (answer is not None and answer.status == 200):
            # Otherwise the machine may have made a line of it that is too slow, by one long stop or by many.
            break
    assert answer is not None
    assert json.loads(answer.body)["body"] == 90_000


@pytest.mark.parametrize("path", ["/x", "/unread"])
def test_a_slow_body_is_not_waited_for(path: str) -> None:
    """408, or the answer if the application does not need the body; closed in either case."""
    with serving(make_app, body_timeout_s=1.5) as server, server.connect() as wire:
        wire.send(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc")
        answer = wire.answer()
        assert answer.status == (200 if path == "/unread" else 408)
        assert answer.headers["connection"] == "close"
        assert wire.is_closed()
        with server.connect() as other:
            other.ask("GET", "/still-there")
            assert other.answer().status == 200


def test_waiting_for_an_answer_is_not_being_slow(known: Wire) -> None:
    """Deadlines of later requests do not end an earlier one that is being worked on."""
    ask_and_be_held(known)
    known.send("GET /later HT")
    time.sleep(1.2)  # waits: longer than the deadline of the second head
    held_go.set()
    assert json.loads(known.answer().body)["path"] == "/held"
    assert known.answer().code == "REQUEST_TIMEOUT"


def test_an_answer_that_nobody_reads_is_not_over() -> None:
    """Whoever asked for it is still being served, and what of it waits in the connection is little."""
    with serving(make_app) as server, socket.socket() as sock:
        # So that the kernels hold less than the answer.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        sock.connect(("127.0.0.1", server.port))
        wire = Wire(sock)
        large_sent.clear()
        wire.ask("GET", "/large")
        assert sock.recv(1, socket.MSG_PEEK)
        with server.connect() as other:
            other.ask("GET", "/slow")
            assert other.answer().status == 200
        assert not large_sent.is_set()
        assert len(wire.answer().body) == 8_000_000
        assert large_sent.wait(60)


def test_who_never_reads_is_cut_off() -> None:
    """An answer does not wait in memory for ever."""
    with serving(make_app, unread_answer_timeout_s=0.05) as server, server.connect() as wire:
        large_sent.clear()
        wire.ask("GET", "/large")
        # Nothing of it is read, and it is more than the kernels hold: it is over because it was cut off.
        assert large_sent.wait(PATIENCE_S)
        received = part = 1
        while part:
            part = len(wire.sock.recv(1_000_000))
            received += part
        # What the kernels had taken still arrives.
        assert received < 8_000_000


def test_who_reads_slowly_gets_all() -> None:
    """As long as it goes on, nobody is in a hurry."""
    for _attempt in range(20):
        with serving(make_app, unread_answer_timeout_s=2.0) as server, server.connect() as wire:
            wire.ask("GET", "/large")
            late_s, read_at = 0.0, time.monotonic()
            received = part = 1
            while received < 8_000_000 and part:
                time.sleep(0.12)  # waits: reading slowly is what is tried
                part = len(wire.sock.recv(400_000))
                received += part
                late_s, read_at = late_s + time.monotonic() - read_at - 0.12, time.monotonic()
        if late_s < 0.5 or received >= 8_000_000:
            # Otherwise so little may have been read for so long that it was cut off.
            break
    assert received >= 8_000_000
