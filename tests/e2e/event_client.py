"""A client of server-sent events: one socket, read event by event, so that a test can stop anywhere."""

import json
import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

LIMIT_S = 60.0


@dataclass(frozen=True)
class Event:
    """One event, and when it was read."""

    event_id: str
    name: str
    data: Any
    at: float


class EventClient:
    """An open stream. ``status`` and ``head`` are of the answer; ``comments`` counts signs of life."""

    def __init__(self, port: int, token: str, path: str, after: str | None = None, limit_s: float = LIMIT_S) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=limit_s)
        resumed = f"Last-Event-ID: {after}\r\n" if after is not None else ""
        head = (
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\n{resumed}"
        )
        self._socket.sendall(f"{head}\r\n".encode())
        self._raw = b""
        self._text = b""
        self._ended = False
        self.comments = 0
        while b"\r\n\r\n" not in self._raw:
            self._receive()
        answer, self._raw = self._raw.split(b"\r\n\r\n", 1)
        self.head = answer.decode()
        self.status = int(answer[9:12])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def next(self) -> Event | None:
        """The next event; None when the stream was ended as it should be. Raises ``ConnectionError`` otherwise."""
        while True:
            while b"\n\n" not in self._text:
                if self._ended:
                    return None
                self._read_chunk()
            block, self._text = self._text.split(b"\n\n", 1)
            event = self._parse(block.decode())
            if event is not None:
                return event

    def until_alive(self) -> None:
        """Wait for a sign of life in a stream without events."""
        while self.comments == 0:
            if b"\n\n" not in self._text:
                self._read_chunk()
                continue
            block, self._text = self._text.split(b"\n\n", 1)
            assert self._parse(block.decode()) is None

    def all(self) -> list[Event]:
        """Every event up to the end of the stream."""
        found = []
        while (event := self.next()) is not None:
            found.append(event)
        return found

    def _parse(self, block: str) -> Event | None:
        if block.startswith(":"):
            self.comments += 1
            return None
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        if "data" not in fields:
            return None
        return Event(fields["id"], fields["event"], json.loads(fields["data"]), time.monotonic())

    def _read_chunk(self) -> None:
        while b"\r\n" not in self._raw:
            self._receive()
        size_line, self._raw = self._raw.split(b"\r\n", 1)
        size = int(size_line, 16)
        while len(self._raw) < size + 2:
            self._receive()
        self._text += self._raw[:size]
        self._raw = self._raw[size + 2 :]
        self._ended = size == 0

    def _receive(self) -> None:
        data = self._socket.recv(65_536)
        if not data:
            raise ConnectionResetError("the stream broke off")
        self._raw += data


def texts(events: list[Event]) -> dict[tuple[str, int | None, int, str], str]:
    """What a client puts together: the output by step, item, attempt and stream."""
    found: dict[tuple[str, int | None, int, str], str] = {}
    for event in events:
        if event.name in ("stdout", "stderr"):
            data = event.data
            key = (data["step"], data["item"], data["attempt"], event.name)
            found[key] = found.get(key, "") + data["text"]
    return found
