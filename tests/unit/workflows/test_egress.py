"""Which addresses steps may reach."""

import socket
from ipaddress import ip_address
from typing import Any

import pytest

from sandgate.core.errors import ConfigurationError
from sandgate.workflows.requests import Egress
from sandgate.workflows.requests.problems import RequestProblem
from sandgate.workflows.requests.target import follow, parse_target

REFUSED = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.8", "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.1.2.3", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::10.0.0.1", "::8.8.8.8", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
    "64:ff9b::8.8.8.8", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::",
    "2002:808:808::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "3fff::1", "4000::1",
]  # fmt: skip
REACHED = ["8.8.8.8", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("text", REFUSED)
def test_special_addresses_are_not_reached(text: str) -> None:
    """Whatever form they are written in."""
    assert not Egress().is_allowed(ip_address(text))


@pytest.mark.parametrize("text", REACHED)
def test_public_addresses_are_reached(text: str) -> None:
    """Also those beside the special ones."""
    assert Egress().is_allowed(ip_address(text))


def test_a_setting_allows_networks() -> None:
    """In the form that they are connected to; nothing beside them."""
    egress = Egress("10.1.0.0/16, fd00::/8,127.0.0.1")
    assert all(egress.is_allowed(ip_address(text)) for text in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::7", "127.0.0.1"))
    assert not any(egress.is_allowed(ip_address(text)) for text in ("10.2.0.0", "127.0.0.2", "fe80::1"))


@pytest.mark.parametrize("text", ["10.1.0.0/99", "10.1", "fe80::zz", "10.1.2.3/16"])
def test_what_is_neither_a_network_nor_a_name_is_refused_at_the_start(text: str) -> None:
    """A slip never silently allows or forbids something else."""
    with pytest.raises(ConfigurationError):
        Egress(text)


def _answering(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    asked: list[str] = []

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


async def test_a_name_is_resolved_once_and_its_addresses_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a name that has both kinds only the public ones are used; of one that has none, nothing."""
    egress = Egress()
    asked = _answering(monkeypatch, "10.0.0.1", "8.8.8.8", "8.8.8.8", "::ffff:9.9.9.9")
    assert await egress.resolve("both.example", 443) == ["8.8.8.8", "9.9.9.9"]
    assert asked == ["both.example"]
    _answering(monkeypatch, "10.0.0.1", "fe80::1%eth0")
    with pytest.raises(RequestProblem, match="SANDGATE_HTTP_STEP_ALLOW") as refused:
        await egress.resolve("inside.example", 443)
    # Users learn no addresses of a network that they may not reach.
    assert "10.0.0.1" not in str(refused.value)
    egress.close()


async def test_a_name_may_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It, and not the one below it."""
    egress = Egress("inside.example")
    _answering(monkeypatch, "10.0.0.1")
    assert await egress.resolve("Inside.Example.", 80) == ["10.0.0.1"]
    with pytest.raises(RequestProblem):
        await egress.resolve("a.inside.example", 80)
    egress.close()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "file:///etc/passwd", "//example.com", "example.com", "http://", "http://:80/",
        "https://user:secret@example.com/", "https://user@example.com", "http://evil.example\\@10.0.0.1/",
        "http://a b/", "http://a/\r\nHost: b", "http://a:99999/", "http://a:0/", "http://[::1", "http://a%00b/",
        "http://[fe80::1%25eth0]/", "http://\u2100.example/", "gopher://127.0.0.1:6379/_x",
        "http://a/\ud800",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    """Without a word of what stood in it."""
    with pytest.raises(RequestProblem) as caught:
        parse_target(url)
    assert "secret" not in caught.value.text


def test_an_address_is_taken_apart_once() -> None:
    """Host, port and path as they are sent."""
    target = parse_target("https://Example.com:8443/a b?q=\u00fc&x=%20#part".replace(" ", "%20"))
    assert (target.host, target.port, target.path) == ("example.com", 8443, "/a%20b?q=%C3%BC&x=%20")
    assert target.authority == "example.com:8443"
    assert parse_target("http://[2001:db8::1]").authority == "[2001:db8::1]"
    assert parse_target("http://b\u00fccher.example/").host == "xn--bcher-kva.example"


def test_redirects_lead_to_whole_addresses() -> None:
    """Relative ones from where they come, none from https to http, none to another scheme."""
    target = parse_target("https://a.example/x/y")
    assert follow(target, "../z?q").path == "/z?q"
    assert follow(target, "//b.example/").host == "b.example"
    for location in ("http://a.example/", "file:///etc/passwd", "https://user@a.example/"):
        with pytest.raises(RequestProblem):
            follow(target, location)
