"""HTTP on one connection: uvicorn's protocol, with a bound on everything that a client can send or withhold."""

import asyncio
import enum
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from sandgate.core.errors import (
    HeadTooLarge,
    MalformedRequest,
    RequestTimeout,
    SandgateError,
    TooManyConnections,
)
from sandgate.core.ids import make_id
from sandgate.http.answer import Header
from sandgate.http.boundary import CONTENT_POLICY, NO_STORE, SAFETY_HEADERS
from sandgate.http.connection import offer_cut
from sandgate.http.polite_transport import PoliteTransport
from sandgate.http.problems import render_problem
from sandgate.http.upgraded import Upgraded, offer_upgrade
from sandgate.http.wire_limits import WireLimits
from sandgate.telemetry.log import get_logger

_MOST_HEAD_BYTES = 16 * 1024
_MOST_PIPELINED = 16
# A body that comes faster than this may take longer than its deadline; how long it may be is the application's affair.
_LEAST_BYTES_A_S = 16 * 1024
# Beyond the limit connections are told so, but only this many at once; the rest are cut off.
_MOST_TOLD = 64

_log = get_logger(__name__)


class _Phase(enum.Enum):
    """What part of a request is being received."""

    IDLE = "nothing"
    HEAD = "head"
    BODY = "body"


class BoundedProtocol(HttpToolsProtocol):
    """Serves one connection.

    The head has a deadline and a size, the body a deadline (its size is the application's affair), the number of
    connections and of pipelined requests is bounded, and an answer that is never read ends the connection. Each
    refusal is an answer of the usual form, after the answers to earlier requests.
    """

    def __init__(self, *arguments: Any, limits: WireLimits, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.url = b""
        self.headers = []
        self._limits = limits
        self._phase = _Phase.IDLE
        self._timed_phase = _Phase.IDLE
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._body_bytes = 0
        self._began_head = False
        self._refused = False
        self._problem: SandgateError | None = None
        self._unparsed_bytes = 0
        self._wanted_keep_alive: bool | None = None
        self._polite: PoliteTransport
        self._place: str | None = None
        # Once the connection speaks another protocol.
        self._upgraded: Upgraded | None = None

    # What the event loop calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        self._polite = PoliteTransport(
            transport, lambda: self._phase is _Phase.BODY, self._limits.unread_answer_timeout_s
        )
        super().connection_made(self._polite)  # type: ignore[arg-type]
        beyond = len(self.connections) - self._limits.max_connections
        if beyond > _MOST_TOLD:
            self._polite.abort()
        elif beyond > 0:
            most = self._limits.max_connections
            self._refuse(TooManyConnections(f"The server holds {most} connections, the most it may; ask again later"))
        elif self._is_crowding(transport):
            most = self._limits.max_of_address
            self._refuse(
                TooManyConnections(
                    f"The server holds {most} connections from your address, the most it may; ask again later"
                )
            )
        else:
            self._phase = _Phase.HEAD
            self._time_phase()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._upgraded is not None:
            self._upgraded.feed(data)
            return
        self._unset_keepalive_if_required()
        if self._refused or self._polite.is_lingering:
            self._polite.drop(data)
            return
        if self._unparsed_bytes:
            self._take_unparsed(data)
            return
        self._began_head = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._problem or MalformedRequest("What arrived is not a request of HTTP/1.1"))
        else:
            self._look_at_phase(len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; whoever still works for it learns of it."""
        self._phase = _Phase.IDLE
        self._cancel_timer()
        self._polite.lost()
        if self._upgraded is not None:
            self._upgraded.lost()
        self._give_place_back()
        self.resume_writing()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        super().pause_writing()
        self._polite.watch_reading()

    def resume_writing(self) -> None:
        """The client has read on."""
        self._polite.stop_watching()
        super().resume_writing()

    def shutdown(self) -> None:
        """Close once the answers that are due have left."""
        if self._upgraded is not None:
            self._upgraded.go_away()
            return
        self._wanted_keep_alive = None
        super().shutdown()

    def abort(self) -> None:
        """Close at once."""
        self._polite.abort()

    # What the parser calls

    def on_message_begin(self) -> None:
        """The first bytes of a request are there."""
        self._phase = _Phase.HEAD
        self._began_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there."""
        if self._parsed_head_bytes() > _MOST_HEAD_BYTES:
            self._problem = _head_too_large()
        elif len(self.pipeline) >= _MOST_PIPELINED:
            self._problem = MalformedRequest(f"More than {_MOST_PIPELINED} requests were sent ahead of their answers")
        if self._problem is not None:
            raise self._problem
        super().on_headers_complete()
        offer_cut(cast("Scope", self.scope), partial(self._cut, self.cycle))
        self._phase = _Phase.BODY

    def on_message_complete(self) -> None:
        """The whole request is there."""
        if self._wanted_keep_alive is not None:
            if not self.cycle.response_started:
                self.cycle.keep_alive = self._wanted_keep_alive
            self._wanted_keep_alive = None
        super().on_message_complete()
        self._phase = _Phase.IDLE

    # The rest

    def _is_crowding(self, transport: asyncio.Transport) -> bool:
        """Count the connection for its client's address; whether that has too many by now."""
        self._place = self._limits.place_of(transport.get_extra_info("peername"))
        if self._place is None:
            return False
        self._limits.held[self._place] += 1
        return self._limits.held[self._place] > self._limits.max_of_address

    def _give_place_back(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            self._limits.held[place] -= 1
            if not self._limits.held[place]:
                del self._limits.held[place]

    def _look_at_phase(self, received: int) -> None:
        """After bytes were parsed: bound what is incomplete."""
        if self._phase is _Phase.HEAD:
            self._head_bytes += self._parsed_head_bytes() if self._began_head else received
            if self._head_bytes > _MOST_HEAD_BYTES:
                self._refuse(_head_too_large())
                return
        self._body_bytes += received
        if self._phase is _Phase.BODY and self._wanted_keep_alive is None:
            # If the answer leaves before the body is there, the rest of the body is not worth waiting for.
            self._wanted_keep_alive = self.cycle.keep_alive
            self.cycle.keep_alive = False
        if self._phase is not self._timed_phase:
            self._time_phase()

    def _parsed_head_bytes(self) -> int:
        """How long the head is, as far as the parser has handed it over."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _time_phase(self) -> None:
        """Set the deadline of the phase."""
        self._cancel_timer()
        self._timed_phase = self._phase
        if self._phase is not _Phase.IDLE:
            self._timer = self.loop.call_later(self._limit_s(), self._time_is_up)

    def _limit_s(self) -> float:
        return self._limits.head_timeout_s if self._phase is _Phase.HEAD else self._limits.body_timeout_s

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_up(self) -> None:
        if self._is_answering_earlier_request() or self._is_going_on():
            # Nobody waits for the rest of this request yet, or it is long and comes as fast as it can.
            self._time_phase()
            return
        limit_s = self._limit_s()
        self._refuse(
            RequestTimeout(f"The {self._phase.value} did not arrive within {limit_s:g} s", {"limit_s": limit_s})
        )

    def _is_going_on(self) -> bool:
        """Whether a body is on its way faster than somebody sends who only means to hold the connection."""
        if self._phase is not _Phase.BODY:
            return False
        arrived, self._body_bytes = self._body_bytes, 0
        return self.flow.read_paused or arrived >= self._limits.body_timeout_s * _LEAST_BYTES_A_S

    def _is_answering_earlier_request(self) -> bool:
        if self._phase is _Phase.BODY:
            return bool(self.pipeline)
        return self.cycle is not None and not self.cycle.response_complete

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Serve the request as if the client had not asked for another protocol, then close; unless it is served by
        somebody who speaks that, and nothing of it was sent before it was agreed upon.

        The parser has stopped behind the head and takes the request for one without a body.
        """
        headers = dict(self.headers)
        self.cycle.keep_alive = False
        if b"transfer-encoding" in headers:
            self.cycle.more_body = True
            self._phase = _Phase.BODY
            self._refuse(MalformedRequest("A request that asks for another protocol cannot have a body in chunks"))
            return
        self._unparsed_bytes = int(headers.get(b"content-length", b"0"))
        if not rest and not self._unparsed_bytes and not self.pipeline:
            offer_upgrade(cast("Scope", self.scope), self._upgrade)
        self.cycle.more_body = bool(self._unparsed_bytes)
        self._phase = _Phase.BODY
        self._take_unparsed(rest)

    def _upgrade(self, head: Sequence[Header]) -> Upgraded:
        """The client agrees; nothing more is said in HTTP."""
        # As far as HTTP goes the request is answered.
        self.cycle.response_started = self.cycle.response_complete = self.cycle.disconnected = True
        self._cancel_timer()
        self._phase = _Phase.IDLE
        self._upgraded = Upgraded(self._polite, self.flow)
        if self.transport.is_closing():
            self._upgraded.lost()
        lines = [b"HTTP/1.1 101 Switching Protocols", *(name + b": " + value for name, value in head)]
        self._upgraded.write(b"\r\n".join(lines) + b"\r\n\r\n")
        return self._upgraded

    def _cut(self, cycle: RequestResponseCycle) -> None:
        """The answer ends here, and the connection with it: its end shows that it is not whole."""
        cycle.disconnected = True
        self._polite.close()

    def _take_unparsed(self, data: bytes) -> None:
        """Take bytes of a body past the parser."""
        taken = data[: self._unparsed_bytes]
        self._unparsed_bytes -= len(taken)
        self.on_body(taken)
        if not self._unparsed_bytes:
            self.on_message_complete()
            # What follows may be in the other protocol.
            self._refused = True
        self._look_at_phase(0)

    def _refuse(self, error: SandgateError) -> None:
        """Answer a request that cannot be handed on, and take no more from this connection."""
        if self._refused:
            return
        self._refused = True
        self._cancel_timer()
        cycle = self.cycle
        if self._is_answering_earlier_request():
            # The connection ends with the answer that is due.
            cycle.keep_alive = False
            self._phase = _Phase.BODY
            return
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self._polite.close()
                return
        _log.debug("connection refused", error_code=error.code, reason=error.message)
        request_id = make_id("req")
        self._limits.tell_refused(self.client[0] if self.client else "", error, request_id)
        self._polite.write(self._render(error, request_id))
        self._polite.linger()

    def _render(self, error: SandgateError, request_id: str) -> bytes:
        answer = render_problem(error, request_id)
        status = HTTPStatus(answer.status)
        headers = [
            *self.server_state.default_headers,
            *answer.head(),
            NO_STORE,
            *SAFETY_HEADERS,
            CONTENT_POLICY,
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}".encode(),
            *(name + b": " + value for name, value in headers),
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n" + answer.body


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"The head of the request is longer than {_MOST_HEAD_BYTES} bytes", {"limit_bytes": _MOST_HEAD_BYTES}
    )
