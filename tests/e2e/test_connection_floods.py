"""Ten times more connections than may be had, from clients that mean no good; a good one is served all the time."""

import contextlib
import os
import resource
import selectors
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from bench.client import Connection
from bench.sandgate_server import Server
from tests.crash.server_process import GATEWAY, CrashServer, until

MOST, MOST_OF_ADDRESS = 200, 100
FLOOD = 10 * MOST
HEAD_S = 3.0
ADDRESSES = tuple(f"127.0.0.{number}" for number in range(10, 50))
GOOD = "127.0.0.2"
# In so much of the time of a head all have to be there, or some are gone before the last one comes.
_SOON_S = HEAD_S / 2
# Far above what any of it takes on a busy machine; far below what a client waits before it gives up.
PATIENCE_S = 20.0
SETTINGS = {
    "SANDGATE_MAX_CONNECTIONS": f"{MOST}",
    "SANDGATE_MAX_CONNECTIONS_PER_ADDRESS": f"{MOST_OF_ADDRESS}",
    "SANDGATE_HEAD_TIMEOUT_S": f"{HEAD_S:g}",
    "SANDGATE_SPARE_SANDBOXES": "0",
}
_HARD_RESET = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def server() -> Iterator[CrashServer]:
    """A server that takes few connections; this process may have many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * FLOOD + 1000)), hard))
    with CrashServer(SETTINGS) as running:
        yield running
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Good:
    """Asks all the time on a connection of its own, and notes the slowest answer."""

    def __init__(self, server: Server) -> None:
        self._connection = _connect(server)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers = 0
        self.slowest_s = 0.0
        self.failure: BaseException | None = None

    def __enter__(self) -> "Good":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                begun = time.monotonic()
                self._connection.expect(200, "GET", "/api/v1/me")
                self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
                self.answers += 1
                self._stop.wait(0.005)
        except BaseException as failure:
            self.failure = failure

    def check(self) -> None:
        """It was answered all the time, and is answered now."""
        before = self.answers
        until(lambda: self.failure is not None or self.answers > before, "the good one is answered")
        assert self.failure is None, self.failure
        assert self.slowest_s < PATIENCE_S


def _connect(server: Server, address: str = GOOD) -> Connection:
    """An admin's connection from an address."""
    connection = Connection(server.port, server.token)
    connection.close()
    connection._socket = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S, source_address=(address, 0))
    return connection


def _open(server: Server, address: str, received_bytes: int = 0) -> socket.socket:
    client = socket.socket()
    try:
        if received_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received_bytes)
        client.settimeout(PATIENCE_S)
        client.bind((address, 0))
        client.connect(("127.0.0.1", server.port))
    except OSError:
        client.close()
        raise
    return client


@contextlib.contextmanager
def _flood(server: Server, count: int, begin: Callable[[socket.socket], None]) -> Iterator[list[socket.socket]]:
    """So many connections from many addresses, each begun in a way; what was cut off at once is left out."""
    held: list[socket.socket] = []
    try:
        for number in range(count):
            with contextlib.suppress(ConnectionError):
                held.append(_open(server, ADDRESSES[number % len(ADDRESSES)]))
                begin(held[-1])
        yield held
    finally:
        for client in held:
            client.close()


def _outcomes(held: list[socket.socket], seconds: float) -> Counter[str]:
    """The status that each was answered with, or how else it ended, within a time."""
    found: Counter[str] = Counter()
    ends_at = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for client in held:
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() < ends_at:
            for key, _events in selector.select(0.1):
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                selector.unregister(ready)
                try:
                    data = ready.recv(4096)
                except ConnectionError:
                    data = b""
                found[data[9:12].decode() if data else "cut off"] += 1
        found["held"] = len(selector.get_map() or ())
    return found


def _recovers(server: CrashServer) -> None:
    """At once, for a new client from any address; what the others held is given back."""

    def is_served() -> bool:
        with contextlib.suppress(OSError, AssertionError), _connect(server) as connection:
            return connection.request("GET", "/api/v1/me").status == 200
        return False

    until(is_served, "a new client is served", PATIENCE_S)
    gateway = server.process(GATEWAY)
    until(lambda: len(os.listdir(f"/proc/{gateway}/fd")) < 100, "all descriptors are given back", PATIENCE_S)


def _nothing(_client: socket.socket) -> None:
    pass


def _half_a_head(client: socket.socket) -> None:
    client.sendall(b"GET /api/v1/me HTTP/1.1\r\nHost: h\r\nX-Slow: ")


def _half_open(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("begin", [_nothing, _half_a_head, _half_open])
def test_ten_times_the_connections(server: CrashServer, begin: Callable[[socket.socket], None]) -> None:
    """Whoever is held is told to hurry, whoever is too many is told so or cut off; the good one notices nothing."""
    with Good(server) as good:
        with _flood(server, FLOOD, begin) as held:
            found = _outcomes(held, HEAD_S + PATIENCE_S)
        good.check()
    assert found["held"] == 0, found
    assert not found.keys() - {"408", "503", "cut off", "held"}, found
    if begin is not _half_open:
        assert found["503"] > 0, found
    _recovers(server)


def test_a_new_client_is_told_in_time_while_all_places_are_taken(server: CrashServer) -> None:
    """503 with ``Retry-After``, not a hang; and as soon as the places are given back, it is served."""
    for _attempt in range(5):
        started = time.monotonic()
        with _flood(server, MOST, _half_a_head):
            begun = time.monotonic()
            with _open(server, GOOD) as late:
                answered = late.recv(4096)[:16]
            assert time.monotonic() - begun < PATIENCE_S
        _recovers(server)
        if begun - started < _SOON_S:
            break
    assert b"503" in answered


def test_one_address_cannot_take_the_places_of_others(server: CrashServer) -> None:
    """Beyond its share it is told so; others are served beside it."""
    for _attempt in range(5):
        held: list[socket.socket] = []
        begun = time.monotonic()
        try:
            held.extend(_open(server, ADDRESSES[0]) for _each in range(MOST_OF_ADDRESS + 20))
            took_s = time.monotonic() - begun
            with _connect(server) as connection:
                connection.expect(200, "GET", "/api/v1/me")
            found = _outcomes(held, HEAD_S + PATIENCE_S)
        finally:
            for client in held:
                client.close()
        _recovers(server)
        if took_s < _SOON_S:
            break
    assert (found["503"], found["408"], found["held"]) == (20, MOST_OF_ADDRESS, 0), found


def test_clients_that_vanish_without_a_word(server: CrashServer) -> None:
    """Thousands of resets, before and in the middle of a request."""
    with Good(server) as good:
        for number in range(FLOOD):
            with contextlib.suppress(ConnectionError), _open(server, ADDRESSES[number % len(ADDRESSES)]) as client:
                if number % 2:
                    client.sendall(b"POST /api/v1/auth/token HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{")
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _HARD_RESET)
        good.check()
    _recovers(server)


def test_answers_that_nobody_reads(server: CrashServer) -> None:
    """They wait in the memory of their connection, a bounded number of times; nobody else waits."""
    gateway = server.process(GATEWAY)
    before = _memory_kib(gateway)
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n" * 10
    held = []
    try:
        with Good(server) as good:
            for number in range(MOST // 2):
                held.append(_open(server, ADDRESSES[number % len(ADDRESSES)], received_bytes=2048))
                held[-1].sendall(asked)
            until(lambda: good.failure is not None or good.answers > 50, "the good one goes on being answered")
            good.check()
        assert _memory_kib(gateway) - before < 50 * 1024
    finally:
        for client in held:
            client.close()
    _recovers(server)


def test_large_answers_that_one_user_does_not_read(server: CrashServer) -> None:
    """Few of them are held, further ones refused; everybody else is served, and the user, too, having gone away."""
    gateway = server.process(GATEWAY)
    with _connect(server) as admin:
        token = _new_user(admin)
    with Connection(server.port, token) as user:
        step = {"name": "a", "type": "code_execution", "config": {"code": "#" * 900_000}}
        for _ in range(3):
            user.expect(201, "POST", "/api/v1/orchestrator/workflows", {"name": "w", "steps": [step]})
    before = _memory_kib(gateway)
    asked = f"GET /api/v1/orchestrator/workflows HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    held = []
    try:
        with Good(server) as good:
            for number in range(MOST * 3 // 5):
                held.append(_open(server, ADDRESSES[number % len(ADDRESSES)], received_bytes=2048))
                held[-1].sendall(asked)
            begun = Counter(client.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL) for client in held)
            good.check()
        # Each has over 5 MB.
        assert set(begun) == {b"HTTP/1.1 200", b"HTTP/1.1 429"}
        assert 10 <= begun[b"HTTP/1.1 200"] <= 13
        assert _memory_kib(gateway) - before < 250 * 1024
    finally:
        for client in held:
            client.close()
    _recovers(server)
    with Connection(server.port, token) as user:
        until(lambda: user.request("GET", "/api/v1/me").status == 200, "the user is served again")


def _new_user(admin: Connection) -> str:
    """A user's token."""
    account = {"username": "greedy", "password": "correct horse battery staple"}
    admin.expect(201, "POST", "/api/v1/users", account)
    token: str = admin.expect(200, "POST", "/api/v1/auth/token", account)["access_token"]
    return token


def _memory_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))
