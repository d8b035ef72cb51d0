"""Web sockets: messages in both directions over a connection that was upgraded.

Source: RFC 6455. The frames are the ``websockets`` library's affair; here are the handshake, whose HTTP the server has
read already, the bounds, and an end in every case. Nothing is compressed, so that a message is never larger than what
was sent.
"""

import asyncio
import binascii
import logging
from base64 import b64decode
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Protocol

from starlette.types import Receive, Scope, Send
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol as Framing
from websockets.protocol import Side, State
from websockets.utils import accept_key

from sandgate.core.errors import ForeignOrigin, MalformedRequest, UpgradeRequired
from sandgate.core.ids import UserId
from sandgate.http.exchange import Exchange, exchange_of
from sandgate.http.streaming import Check, Streams, is_still_let_in
from sandgate.http.upgraded import Upgrade, Upgraded, find_upgrade

MOST_MESSAGE_BYTES = 256 * 1024
_MOST_FRAGMENTS = 256
# So much is read at once, as it may be many frames; then others get their turn.
_SLICE_BYTES = 4096
# How long a client may take to answer that the connection is to be closed.
_CLOSING_S = 2.0
_FAILING_S = 0.2
_LAST_WORDS_S = 0.5
_LONGEST_REASON_BYTES = 123
_KEY_BYTES = 16
# The credential is looked at as often as that of an event stream.
_LONGEST_UNCHECKED_S = 15.0

_logger = logging.getLogger("sandgate.web_socket")
_logger.setLevel(logging.CRITICAL)

Message = str | bytes


class Speaker(Protocol):
    """Who speaks over a socket; ``close`` comes last, also when nothing was said."""

    async def talk(self, socket: "WebSocket") -> tuple[int, str]:
        """Until there is nothing more to say; answers with which code and reason to close it."""
        ...

    def close(self) -> None:
        """The conversation is over, or has never begun."""
        ...


def check_upgrade(scope: Scope, origins: Collection[str]) -> Upgrade:
    """That a request opens a web socket, and from a page that may. Before anything is done for it.

    ``origins`` are pages' that may beside the server's own. Raises ``UpgradeRequired``, ``MalformedRequest``,
    ``ForeignOrigin``.
    """
    exchange = exchange_of(scope)
    headers, upgrade = exchange.headers, find_upgrade(scope)
    if upgrade is None or headers.get(b"upgrade", b"").lower() != b"websocket":
        raise UpgradeRequired("This address speaks over a web socket only; send `Upgrade: websocket` over HTTP/1.1")
    if headers.get(b"sec-websocket-version") != b"13":
        raise UpgradeRequired("This server speaks version 13 of the web socket protocol")
    try:
        key = b64decode(headers.get(b"sec-websocket-key", b""), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != _KEY_BYTES:
        raise MalformedRequest("Sec-WebSocket-Key has to be 16 bytes in base64")
    _check_origin(exchange, origins)
    return upgrade


def _check_origin(exchange: Exchange, origins: Collection[str]) -> None:
    """Only browsers send one. A page of this server's is as good whatever proxy it came through."""
    origin = exchange.headers.get(b"origin")
    if origin is None or origin.decode("latin-1") in origins:
        return
    host = exchange.headers.get(b"host", b"")
    if not host or origin.partition(b"://")[2].lower() != host.lower():
        raise ForeignOrigin(
            f"Pages of {origin.decode('latin-1')[:200]} may not open web sockets here; SANDGATE_CORS_ORIGINS names "
            "those that may"
        )


def offered_protocols(exchange: Exchange) -> Sequence[str]:
    """The subprotocols that a client offers, in its order."""
    offered = exchange.headers.get(b"sec-websocket-protocol", b"").decode("latin-1")
    return [part.strip() for part in offered.split(",") if part.strip()]


class WebSocket:
    """One task receives, any may send."""

    def __init__(self, connection: Upgraded, most_bytes: int = MOST_MESSAGE_BYTES) -> None:
        self._connection = connection
        self._protocol = Framing(Side.SERVER, state=State.OPEN, max_size=most_bytes, logger=_logger)
        self._fragments: list[bytes] = []
        self._kind = Opcode.BINARY
        self._messages: deque[Message] = deque()
        self._unread = memoryview(b"")

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._protocol.state is State.OPEN and not self._connection.is_lost

    async def receive(self) -> Message | None:
        """The next message; None when there will be none."""
        while not self._messages:
            if not self._can_hear or not await self._listen():
                return None
            self._take_events()
            self._flush()
            await self._connection.drain()
        return self._messages.popleft()

    async def send(self, message: Message) -> None:
        """Send a message, and wait until the client has read most of what was sent before."""
        if not self.is_open:
            return
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        self._flush()
        await self._connection.drain()

    def ping(self) -> bool:
        """Ask the client for a sign of life; False when it has given none since the last time."""
        if not self._connection.take_sign_of_life() and not self._connection.is_backed_up:
            return False
        if self.is_open:
            self._protocol.send_ping(b"")
            self._flush()
        return True

    async def close(self, code: int, reason: str) -> None:
        """Close it, and give the client a moment to agree."""
        if self.is_open:
            cut = reason.encode()[:_LONGEST_REASON_BYTES].decode("utf-8", "ignore")
            self._protocol.send_close(code, cut)
            self._flush()
        with suppress(TimeoutError):
            # A client that was told why it failed is only given the time to read that.
            async with asyncio.timeout(_FAILING_S if self._protocol.eof_sent else _CLOSING_S):
                while self._protocol.close_rcvd is None and await self._listen():
                    self._protocol.events_received()
                    self._flush()
        self._connection.close()

    def abort(self) -> None:
        """The client is gone."""
        self._connection.abort()

    @property
    def _can_hear(self) -> bool:
        """What came before the client went is still heard."""
        return self._protocol.state is State.OPEN and (bool(self._unread) or not self._connection.is_lost)

    async def _listen(self) -> bool:
        """Read a little of what has come, or comes; False when nothing does any more."""
        if self._unread:
            await asyncio.sleep(0)
        else:
            self._unread = memoryview(await self._connection.read())
        piece, self._unread = self._unread[:_SLICE_BYTES], self._unread[_SLICE_BYTES:]
        if piece:
            self._protocol.receive_data(bytes(piece))
        return bool(piece)

    def _flush(self) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data:
            self._connection.write(data)

    def _take_events(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._take_frame(event)

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._kind = frame.opcode
        self._fragments.append(bytes(frame.data))
        if len(self._fragments) > _MOST_FRAGMENTS:
            self._fragments.clear()
            self._protocol.fail(CloseCode.POLICY_VIOLATION, f"more than {_MOST_FRAGMENTS} fragments")
        elif frame.fin:
            whole = b"".join(self._fragments)
            self._fragments.clear()
            self._take_message(whole)

    def _take_message(self, whole: bytes) -> None:
        if self._kind is Opcode.BINARY:
            self._messages.append(whole)
            return
        try:
            self._messages.append(whole.decode())
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA, "a text is not UTF-8")


class WebSocketAnswer:
    """An answer that is a conversation, which ends with the client, its credential or the server, too.

    It counts as one of the user's event streams.
    """

    def __init__(
        self,
        streams: Streams,
        user_id: UserId,
        upgrade: Upgrade,
        speaker: Speaker,
        *,
        protocol: str | None = None,
    ) -> None:
        self._streams = streams
        self._user_id = user_id
        self._upgrade = upgrade
        self._speaker = speaker
        self._protocol = protocol

    async def serve(self, scope: Scope, receive: Receive, send: Send, check: Check | None = None) -> None:  # noqa: ARG002 - as an ``EventStream``
        """Hold the conversation. Raises ``TooManyStreams`` before anything was sent."""
        exchange = exchange_of(scope)
        with self._streams.opened(self._user_id):
            connection = self._upgrade(self.head(exchange))
            exchange.status = 101
            socket = WebSocket(connection)
            end: tuple[int, str] = (CloseCode.INTERNAL_ERROR, "the server failed")
            try:
                end = await self._converse(socket, connection, check)
            finally:
                await socket.close(*end)

    def close(self) -> None:
        """Nobody will serve it, or it was served."""
        self._speaker.close()

    def head(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        """What the client is answered when its wish is granted."""
        key = exchange.headers[b"sec-websocket-key"].decode("ascii")
        head = [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", accept_key(key).encode()),
            (b"x-request-id", exchange.request_id.encode()),
        ]
        if self._protocol is not None:
            head.append((b"sec-websocket-protocol", self._protocol.encode()))
        return head

    async def _converse(self, socket: WebSocket, connection: Upgraded, check: Check | None) -> tuple[int, str]:
        """Until one of them comes to an end: the talk, the client's signs of life, the credential, the server."""
        leaving = asyncio.Event()
        connection.on_going_away = leaving.set
        if connection.is_going_away:
            leaving.set()
        talking = asyncio.ensure_future(self._speaker.talk(socket))
        ends = self._attend(socket, check), _leave(leaving), _see_off(connection)
        others = [asyncio.ensure_future(end) for end in ends]
        try:
            done, _ = await asyncio.wait({talking, *others}, return_when=asyncio.FIRST_COMPLETED)
            return (talking if talking in done else done.pop()).result()
        finally:
            for task in (talking, *others):
                task.cancel()
            await asyncio.wait({talking, *others})

    async def _attend(self, socket: WebSocket, check: Check | None) -> tuple[int, str]:
        """Returns when the client is silent, or not let in any more."""
        while True:
            await asyncio.sleep(min(_LONGEST_UNCHECKED_S, self._streams.heartbeat_s))
            if check is not None and not await is_still_let_in(check):
                return CloseCode.POLICY_VIOLATION, "the credential has ended"
            if not socket.ping():
                socket.abort()
                return CloseCode.GOING_AWAY, "the client was silent"


async def _see_off(connection: Upgraded) -> tuple[int, str]:
    """The client has gone. What it said last is still heard, by who listens."""
    await connection.wait_lost()
    await asyncio.sleep(_LAST_WORDS_S)
    return CloseCode.ABNORMAL_CLOSURE, "the client has gone"


async def _leave(leaving: asyncio.Event) -> tuple[int, str]:
    await leaving.wait()
    return CloseCode.GOING_AWAY, "the server stops"
