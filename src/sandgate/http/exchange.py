"""What all layers know of the request at hand."""

import re
from collections.abc import Sequence
from typing import Any

from starlette.types import Scope

from sandgate.core.addresses import TrustedProxies
from sandgate.core.audit import Credential
from sandgate.core.errors import MalformedRequest
from sandgate.core.idempotency import KeyClaim
from sandgate.core.ids import make_id
from sandgate.core.principal import Principal
from sandgate.http.answer import Header

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
# Of these a request has at most one: of two, different readers would believe different ones.
_SINGLE = frozenset(
    {b"authorization", b"content-encoding", b"content-length", b"content-type", b"host", b"idempotency-key"}
)
_KEY = "sandgate.exchange"
_UNKNOWN = "unknown"
# Characters, of a path within an environment. What the audit log has not written yet waits in memory.
_LONGEST_FACT = 512
_NO_PROXIES = TrustedProxies(())


class Exchange:
    """A request's id and headers by lower-case name; ``operation`` and ``status`` are filled in on the way.

    ``claimed`` is the idempotency key that is this request's, and ``kept`` says that its answer is on disk with what it
    did. ``drafted`` is the draft of the answer that a request with the same key is still working on. ``caller``,
    ``credential``, ``changes``, ``resource_id``, ``login_name`` and ``facts`` are what the audit log is told.
    ``is_foreign`` says that the answer is that of a server in an environment, with headers of its own.
    ``has_origin`` says that it is for a name of such a server's own.
    ``wants_head_only`` says that nobody will read the body of the answer. ``host`` is the name that the service was
    asked by, with the port if one was said; empty when none is known. ``port_part`` is that port as it stands in an
    address, where it is known to be the client's; empty otherwise.
    """

    __slots__ = (
        "address",
        "caller",
        "changes",
        "claimed",
        "credential",
        "drafted",
        "facts",
        "has_origin",
        "headers",
        "holds_place",
        "host",
        "is_foreign",
        "is_secure",
        "kept",
        "login_name",
        "operation",
        "port_part",
        "request_id",
        "resource_id",
        "status",
        "wants_head_only",
    )

    def __init__(self, headers: Sequence[Header], address: str = "", *, wants_head_only: bool = False) -> None:
        self.wants_head_only = wants_head_only
        self.headers = dict(headers)
        given = self.headers.get(b"x-request-id", b"")
        self.request_id = given.decode() if _REQUEST_ID.fullmatch(given) else make_id("req")
        self.operation = _UNKNOWN
        self.status = 0
        self.claimed: KeyClaim | None = None
        self.kept = False
        self.drafted: bytes | None = None
        self.address = address
        self.is_secure = False
        self.host = ""
        self.port_part = ""
        self.is_foreign = False
        self.has_origin = False
        self.holds_place = False
        self.caller: Principal | None = None
        self.credential = Credential.NONE
        self.changes = False
        self.resource_id: str | None = None
        self.login_name: str | None = None
        self.facts: dict[str, Any] = {}

    @property
    def scheme(self) -> str:
        """How the service was asked."""
        return "https" if self.is_secure else "http"

    @property
    def origin(self) -> str | None:
        """Where the service was asked, as it stands before a path; None when it was not named."""
        return f"{self.scheme}://{self.host}" if self.host else None

    @property
    def is_known(self) -> bool:
        """Whether the request is for an operation that there is."""
        return self.operation != _UNKNOWN

    def name_part(self, name: str, value: str | None) -> None:
        """Tell the audit log of a thing that the request is about: the first one is the resource."""
        if self.resource_id is None:
            self.resource_id = value
        elif value is not None and value != self.resource_id:
            self.facts[name] = value if len(value) <= _LONGEST_FACT else f"{value[:_LONGEST_FACT]}…"

    def check_headers(self, headers: Sequence[Header]) -> None:
        """Raises ``MalformedRequest`` when a header that decides something is given twice."""
        if len(headers) == len(self.headers):
            return
        names = [name for name, _ in headers]
        repeated = sorted({name.decode("latin-1") for name in _SINGLE if names.count(name) > 1})
        if repeated:
            raise MalformedRequest(f"The request has more than one header {', '.join(repeated)}; send one of each")


def begin_exchange(scope: Scope, proxies: TrustedProxies = _NO_PROXIES, *, wants_head_only: bool = False) -> Exchange:
    """Read the head of a request and keep what was read with it. ``proxies`` are believed about who sent it."""
    client = scope.get("client")
    exchange = Exchange(scope["headers"], client[0] if client else "", wants_head_only=wants_head_only)
    exchange.is_secure = scope.get("scheme") == "https"
    exchange.host = _find_host(exchange.headers.get(b"host", b"")) or _address_of(scope)
    exchange.port_part = _port_part_of(exchange.host)
    if proxies and proxies.holds(exchange.address):
        values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        exchange.address = proxies.find_client(exchange.address, values)
        exchange.is_secure = exchange.headers.get(b"x-forwarded-proto", b"").strip().lower() == b"https"
        # What stands before the last one may be the client's own, and nothing tells which proxies have added one.
        named = _find_host(exchange.headers.get(b"x-forwarded-host", b"").rpartition(b",")[2])
        exchange.host = named or exchange.host
        # In ``Host``, proxies name this server as they reach it, unless they are told otherwise.
        exchange.port_part = _port_part_of(named)
    scope[_KEY] = exchange
    return exchange


def exchange_of(scope: Scope) -> Exchange:
    """What was kept."""
    exchange: Exchange = scope[_KEY]
    return exchange


def _find_host(value: bytes) -> str:
    """A host as it may stand in an address; empty for anything else."""
    host = value.strip().decode("latin-1")
    return host if _HOST.fullmatch(host) else ""


def _port_part_of(host: str) -> str:
    found = _HOST.fullmatch(host)
    return (found[1] or "") if found else ""


def _address_of(scope: Scope) -> str:
    """Where the server listens, for clients that name no host; empty when that is not known."""
    host, port = scope.get("server") or ("", None)
    if not host or port is None:
        return ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
