"""A web socket to a server in an environment: once both have agreed, bytes pass as they are.

What they say to each other is theirs; the service sees to it that it ends with the client, the credential, the server
inside and its own.
"""

import asyncio

import h11
from starlette.types import Receive, Scope, Send

from sandgate.core.http_messages import Header
from sandgate.http.connection import ClientGone
from sandgate.http.exchange import Exchange
from sandgate.http.port_passage import Check, Passage, is_let_in
from sandgate.http.upgraded import Upgrade, Upgraded

_SWITCHING = 101
_CHECK_EVERY_S = 15.0
# What the server inside decides of the handshake.
_AGREED = frozenset({b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol"})


def is_socket(exchange: Exchange) -> bool:
    """Whether a request asks for a web socket."""
    return exchange.headers.get(b"upgrade", b"").lower() == b"websocket" and not exchange.wants_head_only


async def _watch(receive: Receive) -> None:
    """A request for a web socket has no body. Raises ``ClientGone``, in the end."""
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientGone


class SocketPassage:
    """Goes on from a passage that has not begun."""

    def __init__(self, passage: Passage) -> None:
        self._passage = passage
        self._agreed: list[Header] | None = None
        # Both handshake and what is said after it take of the same time.
        self._until = asyncio.get_running_loop().time() + passage.limits.lifetime_s

    async def run(self, scope: Scope, receive: Receive, send: Send, upgrade: Upgrade, check: Check | None) -> None:
        """Ask for it inside; then pass bytes both ways, or the answer out that was given instead.

        Raises ``PortAnswerInvalid``, ``PortTimeout``, ``ClientGone``, ``AnswerCutOff``.
        """
        passage = self._passage
        await passage.begin(scope, is_socket=True)
        await passage.attend(_watch(receive), self._shake_hands(send), check)
        if self._agreed is None:
            return
        connection = upgrade(self._head(self._agreed))
        passage.exchange.status = _SWITCHING
        try:
            await self._pass_both(connection, bytes(passage.inner.trailing_data[0]), check)
        finally:
            connection.close()

    async def _shake_hands(self, send: Send) -> None:
        """Either they agree, or their answer has been passed out."""
        answer = await self._passage.read_head()
        if isinstance(answer, h11.Response):
            await self._passage.answer(answer, send)
        else:
            self._agreed = [(name, value) for name, value in answer.headers if name in _AGREED]

    def _head(self, agreed: list[Header]) -> list[Header]:
        request_id = self._passage.exchange.request_id.encode()
        return [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), *agreed, (b"x-request-id", request_id)]

    async def _pass_both(self, connection: Upgraded, early: bytes, check: Check | None) -> None:
        """Until one of them ends, or nobody may speak any more."""
        leaving = asyncio.Event()
        connection.on_going_away = leaving.set
        if connection.is_going_away:
            leaving.set()
        tasks = {
            asyncio.ensure_future(self._pass_in(connection)),
            asyncio.ensure_future(self._pass_out(connection, early)),
            asyncio.ensure_future(self._attend(check)),
            asyncio.ensure_future(leaving.wait()),
        }
        try:
            left_s = max(0.0, self._until - asyncio.get_running_loop().time())
            await asyncio.wait(tasks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            # A server inside that breaks off is an end like any other.
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pass_in(self, connection: Upgraded) -> None:
        while data := await connection.read():
            await self._passage.stream.send(data)

    async def _pass_out(self, connection: Upgraded, early: bytes) -> None:
        data = early
        while True:
            if data:
                connection.write(data)
                await connection.drain()
            data = await self._passage.stream.receive()
            if not data:
                return

    @staticmethod
    async def _attend(check: Check | None) -> None:
        """Returns when the credential has ended."""
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            if check is not None and not await is_let_in(check):
                return
