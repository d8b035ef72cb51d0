"""The measuring client reads answers as a server may send them."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from bench.client import Connection, UnexpectedAnswer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def serve(*pieces: bytes) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """A server for one connection that sends these pieces, one for each request head that it has read."""
    received: list[bytes] = []
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                for piece in pieces:
                    received.append(connection.recv(65_536))
                    connection.sendall(piece)

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1], lambda: b"".join(received)
        thread.join(30)


def test_it_sends_what_a_server_needs() -> None:
    """The request has a host, a token, a type, a length and the body."""
    body = b'{"a": 1}'
    with serve(HEAD % len(body) + body) as (port, received), Connection(port, "secret") as connection:
        assert connection.expect(200, "POST", "/path", {"a": 1}) == {"a": 1}
    head, _, sent = received().partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /path HTTP/1.1"
    assert set(head.split(b"\r\n")[1:]) == {
        f"Host: 127.0.0.1:{port}".encode(),
        b"Authorization: Bearer secret",
        b"Content-Type: application/json",
        f"Content-Length: {len(sent)}".encode(),
    }
    assert json.loads(sent) == {"a": 1}


def test_one_connection_serves_many_requests() -> None:
    """Two answers that arrive in one piece are told apart."""
    both = HEAD % 1 + b"1" + HEAD % 1 + b"2"
    with serve(both, b"") as (port, _), Connection(port) as connection:
        assert [connection.request("GET", "/").body for _ in range(2)] == [b"1", b"2"]


def test_another_status_than_expected_is_told() -> None:
    """The message says what was asked and what came back."""
    refusal = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"
    with (
        serve(refusal) as (port, _),
        Connection(port) as connection,
        pytest.raises(UnexpectedAnswer, match="DELETE /thing was answered 404"),
    ):
        connection.expect(200, "DELETE", "/thing")


def test_a_connection_that_breaks_is_told() -> None:
    """Half an answer is no answer."""
    with serve(HEAD % 10 + b"half") as (port, _), Connection(port) as connection, pytest.raises(ConnectionResetError):
        connection.request("GET", "/")
