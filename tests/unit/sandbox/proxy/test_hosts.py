"""Which hosts are reached: by rule, by setting, by address; and at the very address that was judged."""

import asyncio

import pytest

from sandgate.core.errors import ConfigurationError
from sandgate.core.network import NetworkPolicy
from sandgate.sandbox.proxy.server import make_gatekeeper
from tests.unit.sandbox.proxy.conftest import Make

_TUNNEL = "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n"
_SPECIAL = (
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.8.8.8", "169.254.169.254", "172.16.0.1", "192.168.1.1",
    "224.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fc00::1",
    "fd00:ec2::254", "fe80::1", "ff02::1",
)  # fmt: skip


@pytest.mark.parametrize("address", _SPECIAL)
async def test_names_of_special_addresses(make: Make, address: str) -> None:
    """A name that may be reached does not make its address so, and the answer does not tell which it was."""
    inside = await make(allow=("evil.test",), special="")
    inside.addresses["evil.test"] = [address]
    answer = await inside.ask(_TUNNEL.format("evil.test:443"))
    assert answer.startswith(b"HTTP/1.1 403")
    assert address.encode() not in answer.replace(b"HTTP/1.1", b"")
    assert (inside.last().verdict, inside.last().reason) == ("denied", "address_refused")


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "[::1]", "10.0.0.1", "[::ffff:127.0.0.1]"])
async def test_special_addresses_that_a_user_names(make: Make, address: str) -> None:
    """Only the administrator can let those be reached."""
    inside = await make(allow=(f"{address}:PORT",), special="")
    assert (await inside.ask(_TUNNEL.format(f"{address}:PORT"))).startswith(b"HTTP/1.1 403")
    assert inside.last().reason == "address_refused"


async def test_name_that_means_something_else_a_moment_later(make: Make) -> None:
    """It is looked up once for each connection, and what was judged is what is connected to."""
    inside = await make(allow=("rebinding.test:PORT",))
    asked = []

    class Rebinding(dict[str, list[str]]):
        def __getitem__(self, name: str) -> list[str]:
            asked.append(name)
            return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    inside.server._gatekeeper._resolver._look_up = Rebinding().__getitem__
    first = f"GET http://rebinding.test:{inside.host_port}/ HTTP/1.1\r\nHost: rebinding.test:{inside.host_port}\r\n"
    assert b"200" in await inside.ask(first + "Connection: close\r\n\r\n")
    assert b"403" in await inside.ask(first + "Connection: close\r\n\r\n")
    assert asked == ["rebinding.test"] * 2


async def test_of_several_addresses_the_public_ones(make: Make) -> None:
    """Those that are refused are not tried; those that do not answer are passed over."""
    inside = await make()
    inside.addresses["host.test"] = ["10.0.0.1", "127.0.0.1"]
    get = "GET http://host.test:PORT/ HTTP/1.1\r\nHost: host.test:PORT\r\nConnection: close\r\n\r\n"
    assert (await inside.ask(get)).startswith(b"HTTP/1.1 200")


async def test_this_machine_by_whatever_address(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service of this machine would take the proxy for one of its own."""
    inside = await make(special="")
    inside.server._gatekeeper._resolver._special.is_allowed = lambda _address: True  # type: ignore[method-assign,assignment]
    assert (await inside.ask(_TUNNEL.format("host.test:PORT"))).startswith(b"HTTP/1.1 403")
    assert inside.last().reason == "address_refused"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("host.test:22", "host_not_allowed"), ("other.test:443", "host_not_allowed"),
        ("xhost.test:443", "host_not_allowed"), ("denied.test:443", "denied_by_administrator"),
        ("sub.denied.test:443", "denied_by_administrator"), ("any.test:25", "denied_by_administrator"),
        ("outside.example:443", "denied_by_administrator"), ("inner.test:443", "denied_by_administrator"),
        ("unknown.test:443", "name_unknown"),
    ],
)  # fmt: skip
async def test_hosts_that_are_not_reached(make: Make, target: str, reason: str) -> None:
    """What no rule names, and what a setting keeps from all."""
    inside = await make(
        allow=("host.test:PORT", "*.test", "*.denied.test", "any.test:25", "outside.example"),
        deny="denied.test, *.denied.test, *:25, 203.0.113.0/24",
        only="*.test",
    )
    if reason == "host_not_allowed":
        inside.server.change("env-1", inside.report().rules.__class__.parse([f"host.test:{inside.host_port}"]))  # type: ignore[union-attr]
    inside.addresses["inner.test"] = ["8.8.8.8", "203.0.113.9"]
    inside.server._gatekeeper._resolver._special.is_allowed = lambda _address: True  # type: ignore[method-assign,assignment]

    def look_up(name: str) -> list[str]:
        if name == "unknown.test":
            raise OSError("no such name")
        return list(inside.addresses[name])

    inside.server._gatekeeper._resolver._look_up = look_up
    answer = await inside.ask(_TUNNEL.format(target))
    assert f"x-sandgate-reason: {reason}".encode() in answer.lower()
    assert inside.last().reason == reason


async def test_nobody_answers(make: Make) -> None:
    """Code is told so at once."""
    inside = await make(allow=("host.test",))
    assert (await inside.ask(_TUNNEL.format("host.test:443"))).startswith(b"HTTP/1.1 502")
    assert (inside.last().verdict, inside.last().reason) == ("failed", "connection_failed")


async def test_name_server_that_hangs(make: Make) -> None:
    """Of one owner only so many threads wait; those of others are looked up meanwhile."""
    inside = await make(allow=("*.test",))
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_name: str) -> list[str]:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
        return ["127.0.0.1"]

    inside.server._gatekeeper._resolver._look_up = hang
    waiting = [asyncio.create_task(inside.ask(_TUNNEL.format(f"a{number}.test:443"))) for number in range(8)]
    while sum(inside.server._gatekeeper._resolver._busy.values()) < 8:  # noqa: ASYNC110 - it is seen from outside
        await asyncio.sleep(0.001)
    assert (await inside.ask(_TUNNEL.format("b.test:443"))).startswith(b"HTTP/1.1 429")
    gate.set()
    await asyncio.gather(*waiting)
    assert not inside.server._gatekeeper._resolver._busy


@pytest.mark.parametrize("deny", ["*x", "a b", "10.0.0.1/8", "host:0", "127.1", "http://a"])
def test_settings_that_cannot_be_read(deny: str) -> None:
    """The server says so when it starts."""
    with pytest.raises(ConfigurationError, match="SANDGATE_NETWORK_DENY"):
        make_gatekeeper(NetworkPolicy(deny=deny))
