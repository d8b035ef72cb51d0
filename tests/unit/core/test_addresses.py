"""Whose requests they are, and which proxies are believed about that."""

import pytest

from sandgate.core.addresses import TrustedProxies, network_of

PROXIES = TrustedProxies.parse("127.0.0.1, 10.0.0.0/8,2001:db8::/32")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.9", ["203.0.113.1"], "192.0.2.9"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        ("127.0.0.1", ["198.51.100.7, 203.0.113.1"], "203.0.113.1"),
        ("127.0.0.1", ["198.51.100.7", "203.0.113.1"], "203.0.113.1"),
        ("127.0.0.1", ["203.0.113.1, 10.1.2.3"], "203.0.113.1"),
        ("127.0.0.1", ["127.0.0.1, 203.0.113.1, 10.1.2.3, 10.9.9.9"], "203.0.113.1"),
        ("127.0.0.1", ["10.1.2.3"], "10.1.2.3"),
        ("127.0.0.1", ["203.0.113.1, nonsense"], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.1, nonsense, 10.0.0.1"], "10.0.0.1"),
        ("127.0.0.1", ["", ","], "127.0.0.1"),
        ("::ffff:127.0.0.1", ["2001:DB8::1, 2001:db9::0001"], "2001:db9::1"),
        ("2001:db8::5", ["203.0.113.1"], "203.0.113.1"),
        ("", ["203.0.113.1"], ""),
    ],
)
def test_the_client_is_who_the_last_trusted_proxy_says(peer: str, forwarded: list[str], client: str) -> None:
    """What a client writes itself stands before that, and is believed by nobody."""
    assert PROXIES.find_client(peer, forwarded) == client


def test_nobody_is_trusted_unless_named() -> None:
    """Also not who is on the same machine."""
    nobody = TrustedProxies.parse("")
    assert not nobody
    assert nobody.find_client("127.0.0.1", ["203.0.113.1"]) == "127.0.0.1"


@pytest.mark.parametrize("text", ["proxy.example.com", "10.0.0.1/8", "1.2.3", "::1/200"])
def test_what_is_no_network_is_refused(text: str) -> None:
    """At the start, not at the first request."""
    with pytest.raises(ValueError):
        TrustedProxies.parse(text)


def test_addresses_of_one_customer_are_one() -> None:
    """Of IPv6, a /64."""
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("nobody") == "unknown"
