"""Web sockets without a network: what ends a conversation, and what is bounded."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Message, Scope
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from sandgate.config.settings import Settings
from sandgate.core.clock import ManualClock
from sandgate.core.errors import ForeignOrigin, MalformedRequest, NotAuthenticated, TooManyStreams, UpgradeRequired
from sandgate.core.ids import ProcessId, UserId
from sandgate.core.principal import Principal, Role
from sandgate.http.exchange import Exchange, begin_exchange
from sandgate.http.socket_tickets import LIFETIME_S, SocketTickets
from sandgate.http.streaming import Streams
from sandgate.http.upgraded import Upgraded, offer_upgrade
from sandgate.http.web_socket import WebSocket, WebSocketAnswer, check_upgrade

USER = UserId("user-1")
CALLER, PROCESS = Principal(USER, "somebody", Role.USER), ProcessId("proc-1")
HEAD = [
    (b"host", b"here:8080"), (b"upgrade", b"websocket"), (b"connection", b"Upgrade"),
    (b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]  # fmt: skip


class _Wire:
    """A connection whose other side is here, too. It reads what it is sent while ``reads`` is set."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.writes = 0
        self.closed = self.aborted = self.paused = False
        self.reads = asyncio.Event()
        self.reads.set()
        self.connection = Upgraded(self, self)
        self.client = Protocol(Side.CLIENT, state=State.OPEN)

    def write(self, data: bytes) -> None:
        self.sent += data
        self.writes += 1

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True
        self.connection.lost()

    async def drain(self) -> None:
        await self.reads.wait()

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def say(self, *frames: Frame) -> None:
        """The client sends frames."""
        for frame in frames:
            self.client.send_frame(frame)
        self.connection.feed(b"".join(self.client.data_to_send()))

    def heard(self) -> list[Frame]:
        """What the client has been sent since the last time."""
        self.client.receive_data(bytes(self.sent))
        self.sent.clear()
        return [event for event in self.client.events_received() if isinstance(event, Frame)]


class _Speaker:
    """Says what it hears until there is no more."""

    def __init__(self) -> None:
        self.heard: list[str | bytes] = []
        self.is_closed = False

    async def talk(self, socket: WebSocket) -> tuple[int, str]:
        while (message := await socket.receive()) is not None:
            self.heard.append(message)
            await socket.send(message)
        return 1000, "all was said"

    def close(self) -> None:
        self.is_closed = True


def _scope(*more: tuple[bytes, bytes]) -> Scope:
    scope: Scope = {"type": "http", "method": "GET", "path": "/t", "headers": [*HEAD, *more], "client": ("1.2.3.4", 5)}
    begin_exchange(scope)
    return scope


async def _nothing() -> Message:
    raise AssertionError


async def _unsent(_message: Message) -> None:
    raise AssertionError


class _Conversation:
    """A conversation that is held with a speaker."""

    def __init__(self, check: Callable[[], Awaitable[object]] | None = None, heartbeat_s: float = 100.0) -> None:
        self.wire, self.speaker = _Wire(), _Speaker()
        self.streams = Streams(Settings(stream_heartbeat_s=heartbeat_s))
        answer = WebSocketAnswer(self.streams, USER, lambda _head: self.wire.connection, self.speaker)
        self.task = asyncio.ensure_future(answer.serve(_scope(), _nothing, _unsent, check))

    async def end(self) -> tuple[int, str]:
        """How the client was told that it ends."""
        frames: list[Frame] = []
        async with asyncio.timeout(30):
            while not any(frame.opcode is Opcode.CLOSE for frame in frames):
                await asyncio.sleep(0)
                frames += self.wire.heard()
            self.wire.connection.feed(b"".join(self.wire.client.data_to_send()))
            await self.task
        assert (self.wire.closed, self.streams.open_count) == (True, 0)
        closing = self.wire.client.close_rcvd
        assert closing is not None
        return closing.code, closing.reason


async def test_fragments_are_one_message_and_pings_are_answered() -> None:
    """In between, too."""
    talk = _Conversation()
    talk.wire.say(Frame(Opcode.TEXT, b"sn\xe2\x98", fin=False), Frame(Opcode.PING, b"p"), Frame(Opcode.CONT, b"\x83w"))
    talk.wire.say(Frame(Opcode.BINARY, b"\xff"), Frame(Opcode.CLOSE, b"\x03\xe8"))
    assert await talk.end() == (1000, "")
    assert talk.speaker.heard == ["sn\N{SNOWMAN}w", b"\xff"]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([Frame(Opcode.TEXT, b"\xff")], 1007),
        ([Frame(Opcode.CONT, b"x")], 1002),
        ([Frame(Opcode.BINARY, bytes(300_000))], 1009),
        ([Frame(Opcode.BINARY, bytes(200_000), fin=False), Frame(Opcode.CONT, bytes(200_000))], 1009),
        ([Frame(Opcode.BINARY, b"", fin=False), *[Frame(Opcode.CONT, b"", fin=False)] * 300], 1008),
    ],
)
async def test_what_is_against_the_protocol_ends_it(frames: list[Frame], code: int) -> None:
    """Before much of it is held."""
    talk = _Conversation()
    talk.wire.say(*frames)
    assert (await talk.end())[0] == code
    assert talk.speaker.heard == []


async def test_a_silent_client_is_let_go() -> None:
    """One that does not answer to a ping until the next one is due."""
    talk = _Conversation(heartbeat_s=0.1)
    async with asyncio.timeout(30):
        await talk.task
    assert (talk.wire.aborted, talk.streams.open_count) == (True, 0)


async def test_a_client_that_answers_is_kept() -> None:
    """And one that is not listened to, because nobody reads what it sends, is not taken for silent."""
    wire = _Wire()
    socket = WebSocket(wire.connection)
    assert socket.ping()
    wire.connection.feed(bytes(300_000))
    assert wire.paused
    assert socket.ping()
    await wire.connection.read()
    assert not wire.paused
    assert not socket.ping()


async def test_a_client_whose_answers_lie_unread_is_kept() -> None:
    """Nobody listens while what was said before has not been taken."""
    wire = _Wire()
    socket = WebSocket(wire.connection)
    assert socket.ping()
    wire.say(Frame(Opcode.PONG, b""))
    assert socket.ping()
    assert not socket.ping()


async def test_others_get_their_turn_however_small_its_frames_are() -> None:
    """And what the client has said is heard all the same, also when it goes meanwhile."""
    wire = _Wire()
    socket = WebSocket(wire.connection)
    wire.say(*[Frame(Opcode.BINARY, b"")] * 5000, Frame(Opcode.TEXT, b"last"))
    turns = 0

    async def listen() -> int:
        count = 0
        while await socket.receive() is not None:
            count += 1
        return count

    listening = asyncio.ensure_future(listen())
    while not listening.done():
        await asyncio.sleep(0)
        wire.connection.lost()
        turns += 1
    assert (listening.result(), turns > 5) == (5001, True)


async def test_answers_to_many_pings_go_out_together() -> None:
    """A write for each would cost the server far more than the client."""
    wire = _Wire()
    wire.say(*[Frame(Opcode.PING, b"")] * 5000, Frame(Opcode.TEXT, b"x"))
    assert await WebSocket(wire.connection).receive() == "x"
    assert (len(wire.heard()), wire.writes < 50) == (5000, True)


async def test_it_ends_with_its_credential() -> None:
    """Looked at as often as that of an event stream."""

    async def check() -> None:
        raise NotAuthenticated("revoked")

    talk = _Conversation(check, heartbeat_s=0.1)
    assert await talk.end() == (1008, "the credential has ended")


async def test_it_ends_with_the_server() -> None:
    """The client is told why."""
    talk = _Conversation()
    await asyncio.sleep(0)
    talk.wire.connection.go_away()
    assert await talk.end() == (1001, "the server stops")


async def test_a_client_that_vanishes_ends_it() -> None:
    """Whatever was being said."""
    talk = _Conversation()
    talk.wire.reads.clear()
    talk.wire.say(Frame(Opcode.TEXT, b"x"))
    await asyncio.sleep(0.01)
    talk.wire.reads.set()
    talk.wire.connection.lost()
    async with asyncio.timeout(30):
        await talk.task
    assert talk.streams.open_count == 0


async def test_a_client_that_vanishes_is_noticed_while_nobody_listens() -> None:
    """By a speaker that waits for something else."""
    talk = _Conversation()

    async def wait(socket: WebSocket) -> tuple[int, str]:
        await asyncio.Event().wait()
        return 1000, ""

    talk.speaker.talk = wait  # type: ignore[method-assign]
    await asyncio.sleep(0)
    talk.wire.connection.lost()
    async with asyncio.timeout(30):
        await talk.task
    assert talk.streams.open_count == 0


async def test_there_are_so_many_of_a_user() -> None:
    """Counted with the event streams; refused before anything is answered."""
    streams = Streams(Settings(max_streams_per_user=1))
    wire = _Wire()
    answer = WebSocketAnswer(streams, USER, lambda _head: wire.connection, _Speaker())
    with streams.opened(USER), pytest.raises(TooManyStreams):
        await answer.serve(_scope(), _nothing, _unsent)
    assert not wire.sent


def test_the_answer_to_the_sample_key_is_that_of_the_standard() -> None:
    """Source: RFC 6455, section 1.3."""
    answer = WebSocketAnswer(Streams(Settings()), USER, lambda _head: _Wire().connection, _Speaker(), protocol="p")
    heads = dict(answer.head(_exchange()))
    assert heads[b"sec-websocket-accept"] == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert heads[b"sec-websocket-protocol"] == b"p"


def _exchange(*more: tuple[bytes, bytes]) -> Exchange:
    return begin_exchange(_scope(*more))


@pytest.mark.parametrize(
    ("origin", "is_good"),
    [
        (b"http://here:8080", True), (b"https://HERE:8080", True), (b"https://app.example.com", True),
        (b"http://here", False), (b"http://here:8080.evil.test", False), (b"null", False), (b"", False),
    ],
)  # fmt: skip
def test_only_pages_that_may_open_one(origin: bytes, is_good: bool) -> None:
    """The server's own, whatever proxy ends TLS before it, and those that were chosen."""
    scope = _scope((b"origin", origin))
    offer_upgrade(scope, lambda _head: _Wire().connection)
    if is_good:
        check_upgrade(scope, ["https://app.example.com"])
        return
    with pytest.raises(ForeignOrigin):
        check_upgrade(scope, ["https://app.example.com"])


def test_what_opens_none_is_refused() -> None:
    """Where nobody can take the connection over, and where the handshake is none."""
    with pytest.raises(UpgradeRequired):
        check_upgrade(_scope(), [])
    for name, value, error in (
        (b"upgrade", b"h2c", UpgradeRequired),
        (b"sec-websocket-version", b"8", UpgradeRequired),
        (b"sec-websocket-key", b"c2hvcnQ=", MalformedRequest),
        (b"sec-websocket-key", b"?", MalformedRequest),
    ):
        scope = _scope((name, value))
        offer_upgrade(scope, lambda _head: _Wire().connection)
        with pytest.raises(error):
            check_upgrade(scope, [])


def test_a_ticket_is_good_once_for_its_path_and_not_for_long() -> None:
    """It stands for the credential that it was asked for with."""
    clock = ManualClock()
    tickets = SocketTickets(clock)

    def admit(ticket: str, path: str = "/t", query: str = "process_id=proc-1&") -> bytes | None:
        exchange = _exchange()
        tickets.admit(exchange, path, f"{query}ticket={ticket}".encode())
        return exchange.headers.get(b"authorization")

    asking = _exchange((b"authorization", b"Bearer secret"))
    first, second, third, *more = (tickets.issue(asking, CALLER, "/t", PROCESS) for _time in range(7))
    assert admit(first) == b"Bearer secret"
    for ticket, path in ((first, "/t"), (second, "/other"), (second, "/t"), ("made-up", "/t")):
        with pytest.raises(NotAuthenticated):
            admit(ticket, path)
    for query in ("", "process_id=proc-2&", "process_id=&", "process_id=proc-1&process_id=proc-2&"):
        with pytest.raises(NotAuthenticated):
            admit(more.pop(), query=query)
    clock.advance(LIFETIME_S + 1)
    with pytest.raises(NotAuthenticated):
        admit(third)
    exchange = _exchange((b"sec-websocket-protocol", b"sandgate.terminal.v1, bearer.abc"))
    tickets.admit(exchange, "/t", b"")
    assert exchange.headers[b"authorization"] == b"Bearer abc"


def test_tickets_of_one_user_push_out_none_of_others() -> None:
    """Of their own the oldest gives way."""
    tickets = SocketTickets(ManualClock())
    asking = _exchange((b"authorization", b"Bearer secret"))
    other = tickets.issue(asking, Principal(UserId("user-2"), "other", Role.USER), "/t", PROCESS)
    first, second, *_rest = (tickets.issue(asking, CALLER, "/t", PROCESS) for _time in range(65))
    for ticket in (second, other):
        tickets.admit(_exchange(), "/t", f"process_id=proc-1&ticket={ticket}".encode())
    with pytest.raises(NotAuthenticated):
        tickets.admit(_exchange(), "/t", f"process_id=proc-1&ticket={first}".encode())
