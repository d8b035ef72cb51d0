"""Lets scripts of chosen web pages ask, and read what is answered. Source: the Fetch standard, section 3.2.

Credentials are headers that a script has to set itself. A browser adds none by itself, so that ``Allow-Credentials`` is
never said, and a page that was not chosen can do nothing that any stranger could not.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sandgate.http.answer import Answer, Header
from sandgate.http.exchange import Exchange

_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
# What requests may carry beyond what any page may send, and what answers carry beyond what any script may read.
_MAY_SEND = b"authorization, content-type, idempotency-key, if-none-match, if-range, last-event-id, range, x-request-id"
_MAY_READ = (
    b"accept-ranges, allow, content-disposition, content-length, content-range, etag, idempotency-replayed, "
    b"retry-after, www-authenticate, x-request-id"
)
# How long a browser may remember it, in seconds.
_REMEMBERED_S = b"600"
_VARIES: Header = (b"vary", b"origin")


@dataclass(frozen=True, slots=True)
class PreflightAnswer(Answer):
    """Has no body."""

    def head(self) -> list[Header]:
        """See ``Answer``."""
        return list(self.headers)


class CrossOrigin:
    """What pages of these origins are told; without any, nobody is told anything."""

    def __init__(self, origins: Collection[str] = ()) -> None:
        self._origins = frozenset(origin.encode("ascii") for origin in origins)

    def answer_preflight(self, method: str, exchange: Exchange) -> Answer | None:
        """The answer to a browser that asks whether it may ask; None for every other request, and for other pages."""
        asks = method == "OPTIONS" and b"access-control-request-method" in exchange.headers
        if not asks or not self._lets_in(exchange):
            return None
        headers = (
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _MAY_SEND),
            (b"access-control-max-age", _REMEMBERED_S),
        )
        return PreflightAnswer(204, b"", b"", headers)

    def dress(self, headers: list[Header], exchange: Exchange) -> None:
        """Add to the headers of an answer who may read it."""
        if not self._origins or (exchange.is_foreign and exchange.has_origin):
            return
        headers.append(_VARIES)
        if self._lets_in(exchange):
            if exchange.is_foreign:
                # Of two statements browsers believe none.
                headers[:] = [header for header in headers if not header[0].startswith(b"access-control-")]
            headers.append((b"access-control-allow-origin", exchange.headers[b"origin"]))
            headers.append((b"access-control-expose-headers", _MAY_READ))

    def _lets_in(self, exchange: Exchange) -> bool:
        return bool(self._origins) and exchange.headers.get(b"origin") in self._origins
