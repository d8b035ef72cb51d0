"""Headers between a client and a server that listens in an environment: what of them is for the other side.

What comes out of an environment is whatever its code says. In an address of the API it is shown by browsers as if it
came from nowhere (the ``sandbox`` directive), so that it can do nothing there in the name of who reads the
documentation; under a name of its own it has an origin of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sandgate.core.http_messages import Header, end_to_end
from sandgate.core.ids import EnvironmentId
from sandgate.http.exchange import Exchange
from sandgate.http.port_addresses import Surroundings, find_links, inside_out

#: Says that an answer comes from inside, whatever stands in it, and of which port.
FROM_PORT = b"x-sandgate-port"
COOKIE = b"sandgate-port"
SECURE_COOKIE = b"__Host-sandgate-port"
# Who asks, and by which way, is said by this server or by nobody.
_NOT_PASSED_IN = frozenset(
    {b"authorization", b"cookie", b"forwarded", b"host", b"referer", b"x-real-ip", b"x-request-id"}
)
_FORWARDED = b"x-forwarded-"
# What a browser would hold for all of a host, or of its domain.
_NOT_PASSED_OUT = frozenset(
    {
        b"alt-svc", b"clear-site-data", b"date", b"expect-ct", b"nel", b"origin-agent-cluster", b"public-key-pins",
        b"report-to", b"reporting-endpoints", b"server", b"service-worker-allowed", b"set-cookie",
        b"strict-transport-security", b"x-request-id", FROM_PORT,
    }
)  # fmt: skip
_ADDRESSES = frozenset({b"location", b"content-location"})
_APART: tuple[Header, ...] = (
    (b"content-security-policy", b"sandbox allow-downloads allow-forms allow-modals allow-popups allow-scripts"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(frozen=True, slots=True)
class PortTarget:
    """``path`` is what the server inside is asked for, with its query; ``prefix`` is what stands before it outside.

    ``has_origin``: it is asked for under a name of its own.
    """

    environment_id: EnvironmentId
    port: int
    path: bytes
    prefix: bytes = b""
    has_origin: bool = False

    @property
    def authority(self) -> bytes:
        """What the server inside is told that it is called: programs that check take this name."""
        return b"localhost:%d" % self.port


def inner_headers(
    exchange: Exchange, given: Sequence[Header], target: PortTarget, *, is_socket: bool = False
) -> list[Header]:
    """The headers of a request, as the server inside gets them; ``is_socket``: it asks for a web socket."""
    kept = [
        (name, value)
        for name, value in end_to_end(given)
        if name not in _NOT_PASSED_IN and not name.startswith(_FORWARDED)
    ]
    if any(name == b"transfer-encoding" for name, _ in given):
        kept = [header for header in kept if header[0] != b"content-length"]
        kept.append((b"transfer-encoding", b"chunked"))
    if target.has_origin:
        kept += [(b"cookie", value) for value in map(_without_own, _values(given, b"cookie")) if value]
    return [
        (b"host", target.authority),
        *((name, _origin_inside(value, exchange, target) if name == b"origin" else value) for name, value in kept),
        *([(b"connection", b"Upgrade"), (b"upgrade", b"websocket")] if is_socket else [(b"connection", b"close")]),
        (b"x-forwarded-host", exchange.headers.get(b"host", b"")),
        (b"x-forwarded-proto", b"https" if exchange.is_secure else b"http"),
        *([(b"x-forwarded-prefix", target.prefix)] if target.prefix else []),
        (b"x-request-id", exchange.request_id.encode()),
    ]


def outer_headers(exchange: Exchange, given: Sequence[Header], target: PortTarget) -> list[Header]:
    """The headers of the answer of a server inside, as its client gets them; lengths are the caller's affair."""
    kept = [(name, value) for name, value in given if name not in _NOT_PASSED_OUT]
    kept = [
        (name, inside_out(value, target.port, target.prefix) if name in _ADDRESSES else value) for name, value in kept
    ]
    kept.append((FROM_PORT, b"%d" % target.port))
    if not target.has_origin:
        kept = _without_ways_out(exchange, kept, target)
        taken = {name for name, _ in _APART[1:]}
        return [*((name, value) for name, value in kept if name not in taken), *_APART]
    if not any(name == b"x-frame-options" for name, _ in kept):
        kept.append((b"x-frame-options", b"SAMEORIGIN"))
    return kept + [(b"set-cookie", value) for value in map(_of_host, _values(given, b"set-cookie")) if value]


def _without_ways_out(exchange: Exchange, given: Sequence[Header], target: PortTarget) -> list[Header]:
    """Clients that bring a token are not to be led to other addresses of the API by code inside."""
    named = (exchange.headers.get(name, b"") for name in (b"host", b"x-forwarded-host"))
    hosts = [host.strip() for value in named for host in value.split(b",")]
    around = Surroundings(hosts, target.prefix, target.path)

    def leads_out(name: bytes, value: bytes) -> bool:
        addresses = [value] if name in _ADDRESSES else find_links(value) if name == b"link" else []
        return name == b"refresh" or not all(map(around.hold, addresses))

    return [(name, value) for name, value in given if not leads_out(name, value)]


def _origin_inside(origin: bytes, exchange: Exchange, target: PortTarget) -> bytes:
    """The own page of a server has the origin that the server knows."""
    own = origin.partition(b"://")[2] == exchange.headers.get(b"host")
    return b"http://" + target.authority if own and target.has_origin else origin


def find_cookies(headers: Sequence[Header], name: bytes) -> list[bytes]:
    """The cookies of this name, each once: names below the same domain can add some of their own, and before it."""
    parts = [part.strip().partition(b"=") for value in _values(headers, b"cookie") for part in value.split(b";")]
    return list(dict.fromkeys(content for key, _, content in parts if key == name))


def _values(headers: Sequence[Header], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _without_own(cookies: bytes) -> bytes:
    parts = [part.strip() for part in cookies.split(b";")]
    return b"; ".join(part for part in parts if part.partition(b"=")[0] not in (COOKIE, SECURE_COOKIE))


def _of_host(cookie: bytes) -> bytes:
    """A cookie for this host alone; none in the place of the service's own."""
    content, *attributes = cookie.split(b";")
    if content.partition(b"=")[0].strip() in (COOKIE, SECURE_COOKIE):
        return b""
    return b";".join([content, *(each for each in attributes if not each.strip().lower().startswith(b"domain"))])
