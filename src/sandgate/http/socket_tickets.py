"""How a browser proves who it is when it opens a web socket, where its scripts can add no header.

Either the credential is one of the subprotocols that it offers (``bearer.<token>``), or the address has a ticket: good
once, for a short time, for one process, and worth no more than the credential that it was asked for with.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sandgate.core.clock import Clock
from sandgate.core.errors import NotAuthenticated
from sandgate.core.ids import ProcessId, UserId
from sandgate.core.principal import Principal
from sandgate.http.bodies import split_form
from sandgate.http.exchange import Exchange
from sandgate.http.web_socket import offered_protocols

LIFETIME_S = 30.0
TICKET = "ticket"
_BEARER = "bearer."
_PROCESS = "process_id"
# Of a user. The oldest gives way: they live too short to be missed.
_MOST = 64


@dataclass(frozen=True, slots=True)
class _Ticket:
    user_id: UserId
    path: str
    process_id: ProcessId
    authorization: bytes
    until: float


class SocketTickets:
    """The tickets that have not been used, in memory: they are worth nothing elsewhere, and after a restart."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Oldest first, as all live equally long.
        self._issued: dict[str, _Ticket] = {}

    def issue(self, exchange: Exchange, caller: Principal, path: str, process_id: ProcessId) -> str:
        """A ticket for the terminal of a process, in the name of whoever makes this request."""
        now = self._clock.monotonic()
        self._forget_old(caller.user_id, now)
        ticket = secrets.token_urlsafe(32)
        authorization = exchange.headers[b"authorization"]
        self._issued[ticket] = _Ticket(caller.user_id, path, process_id, authorization, now + LIFETIME_S)
        return ticket

    def admit(self, exchange: Exchange, path: str, query: bytes) -> None:
        """Take a request for what its credential says, where that comes in none of the usual ways.

        Raises ``NotAuthenticated`` for a ticket that is not good.
        """
        if b"authorization" in exchange.headers:
            return
        for protocol in offered_protocols(exchange):
            if protocol.startswith(_BEARER):
                exchange.headers[b"authorization"] = b"Bearer " + protocol.removeprefix(_BEARER).encode("latin-1")
                return
        given = [value for name, value in split_form(query) if name == TICKET] if TICKET.encode() in query else []
        if given:
            processes = [value for name, value in split_form(query) if name == _PROCESS]
            exchange.headers[b"authorization"] = self._redeem(given[0], path, processes)

    def _redeem(self, text: str, path: str, processes: Sequence[str]) -> bytes:
        ticket = self._issued.pop(text, None)
        is_its = ticket is not None and ticket.path == path and list(processes) == [ticket.process_id]
        if ticket is None or not is_its or ticket.until < self._clock.monotonic():
            raise NotAuthenticated("The ticket was used, is too old, or is for another address; ask for another one")
        return ticket.authorization

    def _forget_old(self, user_id: UserId, now: float) -> None:
        """What is too old, and of this user what is too much."""
        while self._issued and (first := next(iter(self._issued.items())))[1].until < now:
            del self._issued[first[0]]
        own = [text for text, ticket in self._issued.items() if ticket.user_id == user_id]
        for text in own[: max(0, len(own) - _MOST + 1)]:
            del self._issued[text]
