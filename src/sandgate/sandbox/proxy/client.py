"""One connection that came out of an environment, request by request."""

import asyncio
from contextlib import suppress

import h11

from sandgate.core.byte_stream import Stream
from sandgate.sandbox.proxy.forwarding import Forwarding
from sandgate.sandbox.proxy.gatekeeper import Gatekeeper, Place
from sandgate.sandbox.proxy.ledger import Entry
from sandgate.sandbox.proxy.passage import tunnel
from sandgate.sandbox.proxy.problems import Problem, Reason
from sandgate.sandbox.proxy.requests import Asked, read_request

_MOST_HEAD_BYTES = 16 * 1024
_LINGER_S = 1.0
_MOST_LINGERING = 16


class Client:
    """Serves one connection to its end."""

    def __init__(self, place: Place, stream: Stream, gatekeeper: Gatekeeper) -> None:
        self._place = place
        self._stream = stream
        self._gatekeeper = gatekeeper
        self._limits = gatekeeper.limits
        self._incoming = h11.Connection(h11.SERVER, max_incomplete_event_size=_MOST_HEAD_BYTES)
        self._entry: Entry | None = None

    def check_rules(self) -> Problem | None:
        """Why it has to be cut off, now that the rules have changed; None when it may go on."""
        entry = self._entry
        if entry is None or entry.host is None or entry.port is None:
            return None
        if self._place.rules.hold(entry.host, entry.port):
            return None
        entry.cut = Problem(Reason.RULES_CHANGED, "the rules of this environment have changed")
        return entry.cut

    def close(self) -> None:
        """Let go of the connection; twice is no error."""
        self._stream.close()

    async def run(self) -> None:
        """Answer requests until there are no more, or one ends the connection."""
        try:
            while await self._serve_one():
                self._incoming.start_next_cycle()
        except OSError:
            # Whoever asked is gone.
            return
        finally:
            if self._entry is not None:
                self._entry.end(Problem(Reason.CONNECTION_LOST, "the connection was lost"))
            self._stream.close()

    async def _serve_one(self) -> bool:
        """Whether another request may follow."""
        request: h11.Request | None = None
        try:
            async with asyncio.timeout(self._limits.head_timeout_s):
                request = await self._read_head()
        except TimeoutError:
            return False
        except h11.ProtocolError as error:
            await self._refuse(self._place.ledger.begin(), _malformed(error))
            return False
        if request is None:
            return False
        self._entry = entry = self._place.ledger.begin()
        try:
            await self._do(entry, request)
        except h11.ProtocolError as error:
            await self._refuse(entry, _malformed(error))
            return False
        except Problem as problem:
            await self._refuse(entry, problem)
            return False
        entry.end()
        self._entry = None
        return self._incoming.our_state is h11.DONE and self._incoming.their_state is h11.DONE

    async def _read_head(self) -> h11.Request | None:
        while True:
            match self._incoming.next_event():
                case h11.NEED_DATA:
                    # The parser bounds only what is not whole yet.
                    self._incoming.receive_data(await self._stream.receive(_MOST_HEAD_BYTES))
                case h11.Request() as request:
                    return request
                case _:
                    return None

    async def _do(self, entry: Entry, request: h11.Request) -> None:
        asked = read_request(request)
        entry.host, entry.port = asked.host, asked.port
        server = await self._gatekeeper.open(self._place, asked.host, asked.port)
        try:
            entry.connect()
            if asked.path is None:
                await self._tunnel(entry, server)
            else:
                await self._forward(entry, server, request, asked)
        finally:
            server.close()

    async def _tunnel(self, entry: Entry, server: Stream) -> None:
        head = h11.Response(status_code=200, headers=[], reason="Connected")
        await self._stream.send(self._incoming.send(head) or b"")
        early = bytes(self._incoming.trailing_data[0])
        limits = self._limits
        await tunnel(self._stream, server, entry, early, idle_s=limits.idle_timeout_s, lifetime_s=limits.lifetime_s)

    async def _forward(self, entry: Entry, server: Stream, request: h11.Request, asked: Asked) -> None:
        limits = self._limits
        forwarding = Forwarding(self._stream, self._incoming, server, entry)
        await forwarding.run(request, asked, idle_s=limits.idle_timeout_s, lifetime_s=limits.lifetime_s)

    async def _refuse(self, entry: Entry, problem: Problem) -> None:
        """Write it down, and say so if nothing has been answered yet."""
        entry.end(problem)
        if self._incoming.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        text = f"sandgate: {problem.text}\n".encode()
        headers = [
            ("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(text))),
            ("connection", "close"), ("x-sandgate-reason", problem.reason),
        ]  # fmt: skip
        # Shown by programs that show nothing else of what a proxy says.
        reason = problem.text.encode("ascii", "replace")[:200]
        out = self._incoming.send(h11.Response(status_code=problem.status, headers=headers, reason=reason)) or b""
        out += self._incoming.send(h11.Data(data=text)) or b""
        await self._stream.send(out + (self._incoming.send(h11.EndOfMessage()) or b""))
        await self._linger()

    async def _linger(self) -> None:
        """Let the answer arrive: what closes with bytes unread takes it back."""
        self._stream.end()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                for _piece in range(_MOST_LINGERING):
                    if not await self._stream.receive():
                        return


def _malformed(error: h11.ProtocolError) -> Problem:
    if error.error_status_hint == 431:
        return Problem(Reason.HEAD_TOO_LARGE, f"the head of a request may have {_MOST_HEAD_BYTES} bytes")
    return Problem(Reason.BAD_REQUEST, "this is no request of HTTP/1.1")
