"""What all layers know of the request at hand."""

import re
from collections.abc import Sequence

from starlette.types import Scope

from sandgate.core.errors import MalformedRequest
from sandgate.core.idempotency import KeyClaim
from sandgate.core.ids import make_id
from sandgate.http.answer import Header

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Of these a request has at most one: of two, different readers would believe different ones.
_SINGLE = frozenset(
    {b"authorization", b"content-encoding", b"content-length", b"content-type", b"host", b"idempotency-key"}
)
_KEY = "sandgate.exchange"


class Exchange:
    """A request's id and headers by lower-case name; ``operation`` and ``status`` are filled in on the way.

    ``claimed`` is the idempotency key that is this request's, and ``kept`` says that its answer is on disk with what it
    did. ``drafted`` is the draft of the answer that a request with the same key is still working on.
    ``wants_head_only`` says that nobody will read the body of the answer.
    """

    __slots__ = ("claimed", "drafted", "headers", "kept", "operation", "request_id", "status", "wants_head_only")

    def __init__(self, headers: Sequence[Header], *, wants_head_only: bool = False) -> None:
        self.wants_head_only = wants_head_only
        self.headers = dict(headers)
        given = self.headers.get(b"x-request-id", b"")
        self.request_id = given.decode() if _REQUEST_ID.fullmatch(given) else make_id("req")
        self.operation = "unknown"
        self.status = 0
        self.claimed: KeyClaim | None = None
        self.kept = False
        self.drafted: bytes | None = None

    def check_headers(self, headers: Sequence[Header]) -> None:
        """Raises ``MalformedRequest`` when a header that decides something is given twice."""
        if len(headers) == len(self.headers):
            return
        names = [name for name, _ in headers]
        repeated = sorted({name.decode("latin-1") for name in _SINGLE if names.count(name) > 1})
        if repeated:
            raise MalformedRequest(f"The request has more than one header {', '.join(repeated)}; send one of each")


def begin_exchange(scope: Scope, *, wants_head_only: bool = False) -> Exchange:
    """Read the head of a request and keep what was read with it."""
    exchange = Exchange(scope["headers"], wants_head_only=wants_head_only)
    scope[_KEY] = exchange
    return exchange


def exchange_of(scope: Scope) -> Exchange:
    """What was kept."""
    exchange: Exchange = scope[_KEY]
    return exchange
