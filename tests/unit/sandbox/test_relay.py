"""What carries connections out of a container of gVisor's and into one, on the loopback of this machine."""

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sandgate.sandbox import descriptors
from sandgate_agent import relay, wire

_PATIENCE_S = 20.0
_MUCH = os.urandom(1 << 20) * 8


@dataclass
class Outside:
    """The other side of a relay that runs, and a server that it can reach."""

    control: socket.socket
    server: socket.socket
    relay: relay.Relay

    def dial(self, port: int | None = None) -> socket.socket:
        """A connection that the relay was asked for."""
        outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with inner:
            number = 4 * wire.FAMILY + (port or self.server.getsockname()[1])
            descriptors.send(self.control, wire.pack_numbered(wire.DIAL, number), [inner.fileno()])
        outer.settimeout(_PATIENCE_S)
        return outer

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of a connection to the server."""
        outer = self.dial()
        assert outer.recv(1) == wire.READY
        inner, _address = self.server.accept()
        inner.settimeout(_PATIENCE_S)
        return outer, inner

    def listen(self) -> tuple[socket.socket, int]:
        """What asks for sockets, and the port at which somebody may wait."""
        door, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with inner:
            descriptors.send(self.control, wire.pack_numbered(wire.LISTEN, 0), [inner.fileno()])
        door.settimeout(_PATIENCE_S)
        kind, port = wire.parse_numbered(self.control.recv(wire.MESSAGE_LIMIT))
        assert kind == wire.LISTEN
        return door, port

    def until_empty(self) -> None:
        """Wait until nothing is carried any more: of what is asked later it is known that all before was done."""
        for _round in range(1000):
            with self.dial(1) as outer:
                assert outer.recv(1) == b""
            if not self.relay._connections:
                return
        raise AssertionError(f"{len(self.relay._connections)} ends are still there")


@pytest.fixture
def outside() -> Iterator[Outside]:
    """A relay in a thread, which ends with what it is told by."""
    control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.settimeout(_PATIENCE_S)
    made = relay.Relay(inner.fileno())
    thread = threading.Thread(target=made.run)
    thread.start()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(_PATIENCE_S)
        yield Outside(control, server, made)
    control.close()
    thread.join(_PATIENCE_S)
    assert not thread.is_alive()
    made._close_gate()
    made._epoll.close()
    for connection in set(made._connections.values()):
        connection.close()
    inner.close()


def _all(sock: socket.socket) -> bytes:
    said = b""
    while part := sock.recv(1 << 20):
        said += part
    return said


def _send(sock: socket.socket) -> None:
    sock.sendall(_MUCH)
    sock.shutdown(socket.SHUT_WR)


def _fill(sock: socket.socket) -> int:
    """Send until the other side has to read; how much it was."""
    sock.setblocking(False)
    sent = 0
    try:
        while sent < 64 << 20:
            sent += sock.send(bytes(65_536))
    except BlockingIOError:
        pass
    finally:
        sock.settimeout(_PATIENCE_S)
    return sent


def _send_in_vain(sock: socket.socket) -> None:
    """Send to nobody; it raises ``ConnectionError``."""
    while True:
        sock.sendall(bytes(65_536))


def test_bytes_pass_both_ways(outside: Outside) -> None:
    """All of them, in order; the end of one way is no end of the other."""
    outer, inner = outside.connect()
    with outer, inner:
        sending = threading.Thread(target=_send, args=(outer,))
        sending.start()
        assert _all(inner) == _MUCH
        sending.join()
        answering = threading.Thread(target=_send, args=(inner,))
        answering.start()
        assert _all(outer) == _MUCH
        answering.join()
    outside.until_empty()


def test_nobody_listens(outside: Outside) -> None:
    """Its end is all that comes, and nothing stays."""
    port = outside.server.getsockname()[1]
    outside.server.close()
    with outside.dial(port) as outer:
        assert outer.recv(1) == b""
    outside.until_empty()


def test_who_does_not_read_makes_who_writes_wait(outside: Outside) -> None:
    """One piece is held, whichever side it is; what waits comes when it is read."""
    for reads in (0, 1):
        ends = outside.connect()
        sent = _fill(ends[1 - reads])
        assert sent < 32 << 20
        ends[1 - reads].shutdown(socket.SHUT_WR)
        assert len(_all(ends[reads])) == sent
        ends[0].close()
        ends[1].close()
    outside.until_empty()


def test_who_goes_away(outside: Outside) -> None:
    """The other side learns of it, also while bytes wait for the one that has gone."""
    outer, inner = outside.connect()
    outer.close()
    assert inner.recv(1) == b""
    inner.close()
    outer, inner = outside.connect()
    _fill(inner)
    outer.close()
    with pytest.raises(ConnectionError):
        _send_in_vain(inner)
    inner.close()
    outside.until_empty()


def test_an_answer_before_all_was_asked(outside: Outside) -> None:
    """It comes, although what is asked can be told to nobody any more."""
    outer, inner = outside.connect()
    with outer:
        outer.sendall(b"x" * 1000)
        inner.sendall(b"too large")
        inner.close()
        with pytest.raises(ConnectionError):
            _send_in_vain(outer)
        assert outer.recv(1 << 20) == b"too large"
    outside.until_empty()


def test_who_connects_is_given_a_socket(outside: Outside) -> None:
    """One after the other, each its own; one that has gone meanwhile costs nothing."""
    door, port = outside.listen()
    with door:
        for word in (b"first", b"second"):
            with socket.create_connection(("127.0.0.1", port), _PATIENCE_S) as client:
                outer = _give(door)
                client.sendall(word)
                client.shutdown(socket.SHUT_WR)
                assert _all(outer) == word
                outer.close()
                assert client.recv(1) == b""
        socket.create_connection(("127.0.0.1", port)).close()
        with _give(door) as outer:
            assert outer.recv(1) == b""
    outside.until_empty()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def _give(door: socket.socket) -> socket.socket:
    assert door.recv(1) == wire.WAITS
    outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with inner:
        descriptors.send(door, wire.GO, [inner.fileno()])
    outer.settimeout(_PATIENCE_S)
    return outer


def test_many_at_once(outside: Outside) -> None:
    """Each gets what is its own, and nothing is left of any."""
    before = len(os.listdir("/proc/self/fd"))
    pairs = [outside.connect() for _ in range(40)]
    for number, (outer, inner) in enumerate(pairs):
        outer.sendall(b"%d" % number)
        inner.sendall(b"%d" % -number)
    for number, (outer, inner) in enumerate(pairs):
        assert (inner.recv(9), outer.recv(9)) == (b"%d" % number, b"%d" % -number)
        outer.close()
        inner.close()
    outside.until_empty()
    assert len(os.listdir("/proc/self/fd")) <= before
