"""A request for plain HTTP: read whole in its grammar, and written anew, so that both sides see the same messages."""

import asyncio

import h11

from sandgate.core.byte_stream import Stream
from sandgate.core.http_messages import answer_headers, end_to_end, take_body
from sandgate.sandbox.proxy.ledger import Entry
from sandgate.sandbox.proxy.passage import run_both
from sandgate.sandbox.proxy.problems import Problem, Reason
from sandgate.sandbox.proxy.requests import Asked

_MOST_ANSWER_HEAD_BYTES = 64 * 1024
_MOST_INTERIM = 16


class Forwarding:
    """One request and its answer, over a connection to the host that is for them alone."""

    def __init__(self, client: Stream, incoming: h11.Connection, server: Stream, entry: Entry) -> None:
        self._client = client
        self._incoming = incoming
        self._server = server
        self._outgoing = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_ANSWER_HEAD_BYTES)
        self._entry = entry

    async def run(self, request: h11.Request, asked: Asked, *, idle_s: float, lifetime_s: float) -> None:
        """Until the answer is through. Raises ``OSError``, ``Problem``, ``h11.ProtocolError`` of the client's."""
        headers = [header for header in end_to_end(request.headers) if header[0] != b"host"]
        if any(name == b"transfer-encoding" for name, _ in request.headers):
            headers.append((b"transfer-encoding", b"chunked"))
        head = h11.Request(
            method=request.method,
            target=asked.path or "/",
            headers=[(b"host", asked.authority.encode("ascii")), *headers, (b"connection", b"close")],
        )
        await self._pass_up(self._outgoing.send(head) or b"")
        if self._incoming.they_are_waiting_for_100_continue:
            await self._client.send(
                self._incoming.send(h11.InformationalResponse(status_code=100, headers=[], reason="Continue")) or b""
            )
        await run_both(
            self._entry, self._upload(), self._download(), idle_s=idle_s, lifetime_s=lifetime_s, is_tunnel=False
        )

    async def _pass_up(self, data: bytes) -> None:
        self._entry.count(sent=len(data))
        await self._server.send(data)

    async def _upload(self) -> None:
        """The body of the request, in pieces of a size of our own: a client may send chunks of one byte."""
        while True:
            data, ended, dry = take_body(self._incoming)
            out = b"".join([self._outgoing.send(h11.Data(data=data)) or b"" if data else b"", self._finish(ended)])
            if out:
                try:
                    await self._pass_up(out)
                except OSError:
                    # It may have answered before it has read everything.
                    return
            if ended:
                return
            if dry:
                self._incoming.receive_data(await self._client.receive())
            else:
                await asyncio.sleep(0)

    def _finish(self, ended: bool) -> bytes:
        return (self._outgoing.send(h11.EndOfMessage()) or b"") if ended else b""

    async def _download(self) -> None:
        try:
            await self._client.send(self._incoming.send(await self._read_head()) or b"")
            ended = False
            while not ended:
                data, ended, dry = take_body(self._outgoing)
                out = self._incoming.send(h11.Data(data=data)) or b"" if data else b""
                if ended:
                    out += self._incoming.send(h11.EndOfMessage()) or b""
                if out:
                    await self._client.send(out)
                if not ended:
                    await (self._hear() if dry else asyncio.sleep(0))
        except h11.ProtocolError:
            raise Problem(Reason.BAD_ANSWER, "the host does not answer in HTTP") from None

    async def _hear(self) -> None:
        data = await self._server.receive()
        self._entry.count(received=len(data))
        self._outgoing.receive_data(data)

    async def _read_head(self) -> h11.Response:
        for _interim in range(_MOST_INTERIM):
            while (event := self._outgoing.next_event()) is h11.NEED_DATA:
                await self._hear()
            if isinstance(event, h11.Response):
                headers = answer_headers(event)
                return h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
            if not isinstance(event, h11.InformationalResponse):
                break
        raise Problem(Reason.BAD_ANSWER, "the host does not answer the request")
