"""A request that is passed in to a server in an environment, and what comes back, which is passed out.

Both as they come, in pieces: who does not read makes who writes wait. What the server says is read as hostile.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import h11
from starlette.types import Receive, Scope, Send

from sandgate.config.settings import Settings
from sandgate.core.byte_stream import ByteStream
from sandgate.core.errors import NotFound, PortAnswerInvalid, PortTimeout
from sandgate.core.http_messages import answer_headers, take_body
from sandgate.http.connection import AnswerCutOff, ClientGone
from sandgate.http.exchange import Exchange
from sandgate.http.port_headers import PortTarget, inner_headers, outer_headers
from sandgate.http.streaming import is_still_let_in

Check = Callable[[], Awaitable[object]]

# What of HTTP is passed in. CONNECT would end it: what comes behind the answer to that is no message any more.
PASSED_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_MOST_HEAD_BYTES = 64 * 1024
_MOST_INTERIM = 16
_SWITCHING = 101
_HIGHEST_STATUS = 599
_WITHOUT_BODY = frozenset({204, 304})
# The parser lets them pass; the server would fail in the middle of the head.
_NEVER_IN_VALUES = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_PIECE_BYTES = 64 * 1024
# How long an answer may go on with a credential that has been ended.
_CHECK_EVERY_S = 15.0


@dataclass(frozen=True, slots=True)
class PortLimits:
    """How long a server may be silent, and all of a request may take."""

    answer_timeout_s: float
    lifetime_s: float

    @classmethod
    def of(cls, settings: Settings) -> "PortLimits":
        """From the settings."""
        return cls(settings.port_answer_timeout_s, settings.port_connection_timeout_s)


class Passage:
    """One request and its answer."""

    def __init__(self, stream: ByteStream, target: PortTarget, limits: PortLimits, exchange: Exchange) -> None:
        self.stream = stream
        self._target = target
        self.limits = limits
        self.exchange = exchange
        self.inner = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD_BYTES)

    async def run(self, scope: Scope, receive: Receive, send: Send, check: Check | None) -> None:
        """See :class:`PortAnswer`."""
        await self.begin(scope)
        await self.attend(self._upload(receive), self._download(send), check)

    async def attend(
        self, upload: Coroutine[Any, Any, None], download: Coroutine[Any, Any, None], check: Check | None
    ) -> None:
        """Both, until the second is through, its time is up, or whoever asked is gone or not let in any more."""
        up, down = self._start(upload), self._start(download)
        try:
            async with asyncio.timeout(self.limits.lifetime_s):
                await self._until_through(up, down, check)
        except TimeoutError:
            raise self._broken("took longer than it may") from None
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def begin(self, scope: Scope, *, is_socket: bool = False) -> None:
        """Send the head of the request; ``is_socket``: all of one that asks for a web socket."""
        try:
            out = self.inner.send(self._head(scope, is_socket=is_socket)) or b""
            if is_socket:
                out += self.inner.send(h11.EndOfMessage()) or b""
            await self.stream.send(out)
        except (OSError, h11.LocalProtocolError):
            raise self.invalid() from None

    @staticmethod
    def _start(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        return asyncio.create_task(work, name="part of a request to a port")

    def _head(self, scope: Scope, *, is_socket: bool) -> h11.Request:
        method = "HEAD" if self.exchange.wants_head_only else scope["method"]
        headers = inner_headers(self.exchange, scope["headers"], self._target, is_socket=is_socket)
        return h11.Request(method=method, target=self._target.path, headers=headers)

    async def _until_through(self, up: "asyncio.Task[None]", down: "asyncio.Task[None]", check: Check | None) -> None:
        """Until the answer is through; the client, once it has sent all, is watched until then."""
        while not down.done():
            await asyncio.wait({up, down}, timeout=_CHECK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            if up.done() and not down.done():
                up.result()
            if check is not None and not down.done() and not await is_let_in(check):
                raise self._broken("lost its credential")
        down.result()

    async def _upload(self, receive: Receive) -> None:
        """Pass the body in, then wait for the client to go. Raises ``ClientGone``, always in the end."""
        more = True
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            if not more:
                continue
            data, more = message.get("body", b""), message.get("more_body", False)
            out = self.inner.send(h11.Data(data=data)) or b"" if data else b""
            out += b"" if more else self.inner.send(h11.EndOfMessage()) or b""
            try:
                await self.stream.send(out)
            except OSError:
                # It may have answered before it has read everything.
                more = False

    async def _download(self, send: Send) -> None:
        response = await self.read_head()
        if not isinstance(response, h11.Response):
            raise self.invalid()
        await self.answer(response, send)

    async def answer(self, response: h11.Response, send: Send) -> None:
        """Pass an answer out whose head was read."""
        headers = outer_headers(self.exchange, answer_headers(response), self._target)
        if response.status_code in _WITHOUT_BODY:
            # With 304 it is the length of what is not sent.
            headers = [header for header in headers if header[0] != b"content-length"]
        if any(_NEVER_IN_VALUES.search(value) for _, value in headers):
            raise self.invalid()
        self.exchange.is_foreign = True
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        try:
            await self._pass_body(send)
        except (OSError, h11.RemoteProtocolError, PortTimeout):
            raise self._broken("broke off") from None

    async def _pass_body(self, send: Send) -> None:
        ended = False
        while not ended:
            data, ended, dry = take_body(self.inner)
            if data or ended:
                await send({"type": "http.response.body", "body": data, "more_body": not ended})
            if not ended:
                # What is there at once is passed on without a pause, and then others would get no turn.
                await (self._hear() if dry else asyncio.sleep(0))

    async def read_head(self) -> h11.Response | h11.InformationalResponse:
        """The head of the answer; of those that come before it only 101 counts. Raises ``PortAnswerInvalid``."""
        try:
            return await self._read_head()
        except (OSError, h11.RemoteProtocolError):
            raise self.invalid() from None

    async def _read_head(self) -> h11.Response | h11.InformationalResponse:
        for _interim in range(_MOST_INTERIM):
            while (event := self.inner.next_event()) is h11.NEED_DATA:
                await self._hear()
            if isinstance(event, h11.Response) and event.status_code <= _HIGHEST_STATUS:
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code == _SWITCHING:
                return event
            if not isinstance(event, h11.InformationalResponse):
                break
        raise self.invalid()

    async def _hear(self) -> None:
        try:
            async with asyncio.timeout(self.limits.answer_timeout_s):
                self.inner.receive_data(await self.stream.receive(_PIECE_BYTES))
        except TimeoutError:
            raise PortTimeout(
                f"What listens at port {self._target.port} said nothing for {self.limits.answer_timeout_s:g} s",
                {"port": self._target.port},
            ) from None

    def invalid(self) -> PortAnswerInvalid:
        """What to say of what is no answer."""
        port = self._target.port
        return PortAnswerInvalid(
            f"What listens at port {port} does not answer in HTTP/1.1, or broke off", {"port": port}
        )

    def _broken(self, why: str) -> Exception:
        """For an answer that has begun there is no other; whoever reads it has to see that it is not whole."""
        if self.exchange.status:
            return AnswerCutOff(f"an answer from port {self._target.port} {why}")
        return PortTimeout(f"The answer from port {self._target.port} {why}", {"port": self._target.port})


async def is_let_in(check: Check) -> bool:
    """Whether a token or a link is still good; a database that is away ends neither."""
    try:
        return await is_still_let_in(check)
    except NotFound:
        return False
