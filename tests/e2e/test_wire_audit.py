"""What is refused before it is a request is told the audit log, tried with raw bytes on the real server."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bench.sandgate_server import Server
from sandgate.core.audit import AuditEntry, AuditOutcome, Credential
from sandgate.core.clock import ManualClock
from sandgate.http.audit import AuditedConnections
from tests.e2e.wire_app import make_app
from tests.e2e.wire_server import PATIENCE_S, Wire, WireServer, serving

ADDRESS = "127.0.0.1"


class _Sink:
    """Keeps what it is told; nothing but refusals is."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.told = threading.Event()

    def refuse(self, entry: AuditEntry) -> None:
        """An entry."""
        self.entries.append(entry)
        self.told.set()

    def note(self, entry: AuditEntry) -> None:
        """Never."""
        raise AssertionError(entry)

    note_often = note

    async def record(self, entry: AuditEntry) -> None:
        """Never."""
        raise AssertionError(entry)


@pytest.fixture
def sink() -> _Sink:
    """What the audit log was told."""
    return _Sink()


@pytest.fixture
def few(sink: _Sink) -> Iterator[WireServer]:
    """One that has room for few."""
    with serving(make_app, AuditedConnections(sink, ManualClock()).tell_refused, max_connections=3) as made:
        yield made


@pytest.fixture
def hasty(sink: _Sink) -> Iterator[WireServer]:
    """One that has time for few."""
    told = AuditedConnections(sink, ManualClock()).tell_refused
    with serving(make_app, told, head_timeout_s=1.5, body_timeout_s=1.5) as made:
        yield made


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ("neither head nor tail\r\n\r\n", 400, "MALFORMED_REQUEST"),
        ("GET / HTTP/1.1\r\nHost: h\r\nX-Long: " + "x" * 20_000 + "\r\n\r\n", 431, "HEAD_TOO_LARGE"),
    ],
)
def test_a_refused_connection_is_told(few: WireServer, sink: _Sink, sent: str, status: int, code: str) -> None:
    """Once, with the answer's status, code and request id, and where it came from."""
    _check_told(few, sink, sent, status, code)


@pytest.mark.parametrize(
    "sent", ["GET / HTTP/1.1\r\n", "POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nslow"]
)
def test_a_slow_connection_is_told(hasty: WireServer, sink: _Sink, sent: str) -> None:
    """In the same way."""
    _check_told(hasty, sink, sent, 408, "REQUEST_TIMEOUT")


def _check_told(server: WireServer, sink: _Sink, sent: str, status: int, code: str) -> None:
    with server.connect() as wire:
        wire.send(sent)
        answer = wire.answer()
    assert (answer.status, answer.code) == (status, code)
    (entry,) = sink.entries
    assert (entry.action, entry.outcome, entry.credential) == ("connect", AuditOutcome.REFUSED, Credential.NONE)
    assert (entry.status, entry.code, entry.address) == (status, code, ADDRESS)
    assert entry.request_id == answer.headers["x-request-id"]
    assert (entry.actor_id, entry.resource_id, dict(entry.details)) == (None, None, {})


def test_a_crowd_is_told(few: WireServer, sink: _Sink) -> None:
    """Of the connection that there was no place for."""
    held = [few.connect() for _ in range(3)]
    try:
        for wire in held:
            wire.ask("GET", "/here")
            assert wire.answer().status == 200
        assert sink.entries == []
        with few.connect() as wire:
            assert wire.answer().code == "TOO_MANY_CONNECTIONS"
    finally:
        for wire in held:
            wire.sock.close()
    (entry,) = sink.entries
    assert (entry.status, entry.code, entry.outcome) == (503, "TOO_MANY_CONNECTIONS", AuditOutcome.FAILED)


def test_what_is_served_is_not_told(few: WireServer, sink: _Sink) -> None:
    """Nor who comes and goes without a word."""
    few.connect().sock.close()
    with few.connect() as wire:
        wire.ask("GET", "/here")
        assert wire.answer().status == 200
    few.begin_to_stop()
    few.join()
    assert not sink.told.is_set()
    assert sink.entries == []


def test_the_log_of_a_whole_server_has_it(server: Server) -> None:
    """Within moments."""
    with Wire(socket.create_connection((ADDRESS, server.port), PATIENCE_S)) as wire:
        wire.send("neither head nor tail\r\n\r\n")
        assert wire.answer().status == 400
    deadline = time.monotonic() + PATIENCE_S
    found: list[dict[str, object]] = []
    with server.connect() as admin:
        while not found and time.monotonic() < deadline:
            entries = admin.expect(200, "GET", "/api/v1/audit?action=connect")["entries"]
            found = [entry for entry in entries if entry["code"] == "MALFORMED_REQUEST"]
            time.sleep(0.02)  # waits: entries are written a moment later
    assert {name: found[0][name] for name in ("status", "code", "address")} == {
        "status": 400,
        "code": "MALFORMED_REQUEST",
        "address": ADDRESS,
    }
