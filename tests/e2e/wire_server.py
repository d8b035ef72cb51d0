"""A real server on a loopback port, in a thread with an event loop of its own, and a client that sends raw bytes."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvloop
from starlette.types import ASGIApp

from sandgate.config.settings import Settings
from sandgate.http.server import serve
from sandgate.http.wire_limits import TellRefused, tell_nobody

PATIENCE_S = 60.0

# The first loop of a process opens a pipe that libuv keeps for good; better now than in the middle of a test.
uvloop.new_event_loop().close()


@dataclass
class WireServer:
    """Serves what ``make_app`` makes until it is stopped."""

    make_app: Callable[[], Awaitable[ASGIApp]]
    settings: Settings
    tell_refused: TellRefused = tell_nobody
    drained: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.sock.getsockname()[1]
        self.started = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.stop_event: asyncio.Event | None = None
        self.before_drained: Callable[[], Awaitable[None]] | None = None
        self.fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="server")

    def start(self) -> "WireServer":
        """Serve; returns when requests are answered."""
        self._thread.start()
        assert self.started.wait(PATIENCE_S)
        return self

    def begin_to_stop(self) -> None:
        """Ask it to stop."""
        if self.loop is not None and self.stop_event is not None:
            # The loop is closed when it has stopped before.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.stop_event.set)

    def join(self) -> None:
        """Wait until it has stopped."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        if self.fault is not None:
            raise self.fault

    def connect(self) -> "Wire":
        """A new connection."""
        begun = time.monotonic()
        wire = Wire(socket.create_connection(("127.0.0.1", self.port), PATIENCE_S))
        wire.connected_at = begun
        return wire

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                runner.run(self._serve())
            except BaseException as fault:
                self.fault = fault
                self.started.set()

    async def _serve(self) -> None:
        self.loop, self.stop_event = asyncio.get_running_loop(), asyncio.Event()
        app = await self.make_app()
        await serve(
            app,
            self.settings,
            self.sock,
            started=self.started.set,
            stop=self.stop_event,
            drain=self._drain,
            tell_refused=self.tell_refused,
        )
        self.drained.append("served")

    async def _drain(self) -> None:
        if self.before_drained is not None:
            await self.before_drained()
        self.drained.append("drained")


@contextlib.contextmanager
def serving(
    make_app: Callable[[], Awaitable[ASGIApp]], tell_refused: TellRefused = tell_nobody, **settings: Any
) -> Iterator[WireServer]:
    """A server for the length of a block."""
    server = WireServer(make_app, Settings(**settings), tell_refused).start()
    try:
        yield server
    finally:
        server.begin_to_stop()
        server.join()


@dataclass
class WireAnswer:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of an error."""
        code: str = json.loads(self.body)["error"]["code"]
        return code


class Wire:
    """One connection; ``with`` closes it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.connected_at = time.monotonic()
        self._buffer = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes | str) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def ask(self, method: str, path: str, body: bytes = b"", *headers: str) -> None:
        """Send a whole request."""
        lines = [f"{method} {path} HTTP/1.1", "Host: sandgate.test", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def answer(self, *, to_head: bool = False) -> WireAnswer:
        """The next answer."""
        head = self._until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(first.split(" ")[1])
        length = 0 if to_head or status == 100 else int(headers["content-length"])
        return WireAnswer(status, headers, self._exactly(length))

    def is_closed(self) -> bool:
        """Whether the server closes the connection without sending anything more."""
        try:
            return not self._buffer and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._receive()
        found, _, self._buffer = self._buffer.partition(mark)
        return found + mark

    def _exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._receive()
        found, self._buffer = self._buffer[:length], self._buffer[length:]
        return found

    def _receive(self) -> None:
        data = self.sock.recv(262_144)
        if not data:
            raise EOFError(f"the server closed after {self._buffer[:200]!r}")
        self._buffer += data
