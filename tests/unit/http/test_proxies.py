"""Who a request is from, by the address of the connection or the word of a proxy that is trusted."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from sandgate.core.addresses import TrustedProxies
from sandgate.http.answer import Answer
from sandgate.http.boundary import Boundary
from sandgate.http.exchange import begin_exchange, exchange_of
from sandgate.http.metrics import HttpMetrics


@dataclass
class _Seen:
    """What the application was told of one request."""

    address: str = ""
    headers: dict[bytes, bytes] = field(default_factory=dict)


async def _ask(proxies: str, peer: str, headers: list[tuple[bytes, bytes]], scheme: str = "http") -> _Seen:
    seen = _Seen()

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        seen.address = exchange_of(scope).address
        await Answer(200, b"{}").send(send)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            seen.headers = dict(message["headers"])

    scope = {"type": "http", "method": "GET", "headers": headers, "client": (peer, 1), "scheme": scheme}
    boundary = Boundary(app, HttpMetrics(), proxies=TrustedProxies.parse(proxies))
    await boundary(scope, None, send)  # type: ignore[arg-type]
    return seen


FORWARDED = [
    (b"x-forwarded-for", b"198.51.100.9"),
    (b"x-forwarded-for", b"203.0.113.1"),
    (b"x-forwarded-proto", b"https"),
]


@pytest.mark.parametrize(
    ("proxies", "peer", "address", "secure"),
    [
        ("", "127.0.0.1", "127.0.0.1", False),
        ("10.0.0.0/8", "127.0.0.1", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", "203.0.113.1", True),
        ("127.0.0.1,203.0.113.1", "127.0.0.1", "198.51.100.9", True),
    ],
)
async def test_forwarded_addresses_are_believed_of_trusted_proxies_only(
    proxies: str, peer: str, address: str, secure: bool
) -> None:
    """And so is what they say of TLS."""
    seen = await _ask(proxies, peer, list(FORWARDED))
    assert seen.address == address
    assert (b"strict-transport-security" in seen.headers) == secure


async def test_a_proxy_that_speaks_plain_http_is_taken_at_its_word() -> None:
    """It says nothing of TLS, or says that there was none."""
    for headers in ([], [(b"x-forwarded-proto", b"http")]):
        assert b"strict-transport-security" not in (await _ask("127.0.0.1", "127.0.0.1", headers)).headers


@pytest.mark.parametrize(
    ("peer", "forwarded", "host", "port"),
    [
        ("127.0.0.1", [b"api.test:8443"], "api.test:8443", ":8443"),
        ("127.0.0.1", [b"api.test"], "api.test", ""),
        ("127.0.0.1", [b"evil.test:1, api.test:8443"], "api.test:8443", ":8443"),
        ("127.0.0.1", [b"evil.test:1", b"evil.test:2, api.test"], "api.test", ""),
        ("127.0.0.1", [b"api.test/x"], "inner.test:8080", ""),
        ("127.0.0.1", [], "inner.test:8080", ""),
        ("127.0.0.2", [b"api.test"], "inner.test:8080", ":8080"),
    ],
)
def test_the_name_of_the_service_is_believed_of_trusted_proxies_only(
    peer: str, forwarded: list[bytes], host: str, port: str
) -> None:
    """It is what addresses in answers are made of: what the last proxy says, and no port of where it sends to."""
    headers = [(b"host", b"inner.test:8080"), *((b"x-forwarded-host", value) for value in forwarded)]
    scope = {"headers": headers, "client": (peer, 1), "scheme": "http"}
    exchange = begin_exchange(scope, TrustedProxies.parse("127.0.0.1"))
    assert (exchange.host, exchange.port_part) == (host, port)


@pytest.mark.parametrize(
    ("server", "origin"),
    [
        (("10.0.0.1", 80), "http://10.0.0.1:80"),
        (("::1", 80), "http://[::1]:80"),
        (("/run/s", None), None),
        (None, None),
    ],
)
def test_who_names_no_host_is_told_the_address(server: tuple[str, int | None] | None, origin: str | None) -> None:
    """Where the server listens."""
    assert begin_exchange({"headers": [], "server": server}).origin == origin


async def test_every_answer_has_the_headers_of_a_careful_service() -> None:
    """Nothing is sniffed, framed, referred to or kept, and no other site may read it."""
    headers = (await _ask("", "192.0.2.1", [(b"origin", b"https://evil.example")], scheme="https")).headers
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"content-security-policy"] == b"default-src 'none'; frame-ancestors 'none'"
    assert headers[b"x-frame-options"] == b"DENY"
    assert headers[b"referrer-policy"] == b"no-referrer"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"strict-transport-security"] == b"max-age=31536000"
    assert not [name for name in headers if name.startswith(b"access-control-")]
