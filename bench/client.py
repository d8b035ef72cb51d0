"""A lean HTTP client: one socket, kept alive, bytes in and bytes out, so that little but the server is measured."""

import json
import socket
from types import TracebackType
from typing import Any, NamedTuple, Self

RECEIVE_BYTES = 65_536
TIMEOUT_S = 60.0


class Answer(NamedTuple):
    """Status and body of an answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class UnexpectedAnswer(Exception):
    """The server answered something else than the measurement needs."""


class Connection:
    """One connection, used by one thread, that sends a token with every request."""

    def __init__(self, port: int, token: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self._head = f"Host: 127.0.0.1:{port}\r\n{authorization}".encode()
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def request(self, method: str, path: str, body: Any = None) -> Answer:
        """Send a request and read the whole answer. Raises ``OSError`` when the connection breaks."""
        payload = b"" if body is None else json.dumps(body).encode()
        self._socket.sendall(self._start(method, path, len(payload)) + payload)
        return self._read()

    def expect(self, status: int, method: str, path: str, body: Any = None) -> Any:
        """Send a request and answer the parsed body. Raises ``UnexpectedAnswer`` for any other status."""
        answer = self.request(method, path, body)
        if answer.status != status:
            raise UnexpectedAnswer(f"{method} {path} was answered {answer.status}: {answer.body[:500]!r}")
        return answer.json()

    def _start(self, method: str, path: str, length: int) -> bytes:
        content = f"Content-Type: application/json\r\nContent-Length: {length}\r\n" if length else ""
        if not length and method == "POST":
            content = "Content-Length: 0\r\n"
        return f"{method} {path} HTTP/1.1\r\n".encode() + self._head + content.encode() + b"\r\n"

    def _read(self) -> Answer:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._receive()
        head, rest = self._buffer[:end], end + 4
        total = rest + _content_length(head)
        while len(self._buffer) < total:
            self._receive()
        body, self._buffer = self._buffer[rest:total], self._buffer[total:]
        return Answer(int(head[9:12]), body)

    def _receive(self) -> None:
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError("The server closed the connection in the middle of an answer")
        self._buffer += data


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise UnexpectedAnswer(f"An answer without a length: {head!r}")
