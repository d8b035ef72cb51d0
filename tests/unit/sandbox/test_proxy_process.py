"""The gateway loses nothing when the proxy is slow, and rules that stand are those in force."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from sandgate.core.errors import ConfigurationError, NetworkUnavailable
from sandgate.core.ids import EnvironmentId
from sandgate.core.network import NetworkPolicy, NetworkRules
from sandgate.sandbox import proxy_process
from sandgate.sandbox.proxy_process import ProxyChannel, ProxyProcess
from tests.unit.sandbox.conftest import settle

_ENVIRONMENT = EnvironmentId("env-1")
_LONG = [f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 50}.host-{number}" for number in range(64)]
_OPEN, _SHUT = NetworkRules.parse(["127.0.0.1:9"]), NetworkRules.parse(["other.test"])


class Site:
    """An environment's listener, and a proxy that is told of it."""

    def __init__(self) -> None:
        self.process = ProxyProcess(NetworkPolicy(special="127.0.0.1"))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listened = 0
        self.unlistened = 0
        self.may_listen = asyncio.Event()
        self.may_listen.set()

    async def listen(self) -> int:
        """A copy, when the test lets it."""
        self.listened += 1
        await self.may_listen.wait()
        return os.dup(self.listener.fileno())

    async def unlisten(self) -> None:
        """Count it."""
        self.unlistened += 1

    async def open(self, rules: NetworkRules) -> None:
        """As a request does."""
        await self.process.open(_ENVIRONMENT, "user-1", rules, self.listen, self.unlisten)

    @property
    def channel(self) -> ProxyChannel:
        """To the proxy of now."""
        assert self.process._channel is not None
        return self.process._channel

    async def status(self) -> bytes:
        """What is answered to a request for the host that the open rules name: 403, or 502 as nobody is there."""
        reader, writer = await asyncio.open_connection(*self.listener.getsockname())
        writer.write(b"CONNECT 127.0.0.1:9 HTTP/1.1\r\nHost: 127.0.0.1:9\r\n\r\n")
        try:
            return (await reader.readline()).split()[1]
        finally:
            writer.close()

    async def lose_proxy(self) -> None:
        """Until the next one is being told, and waits for the listener."""
        self.may_listen.clear()
        before = self.listened
        self.channel.lose()
        await settle(lambda: self.listened > before)


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """With an environment that reaches the host."""
    monkeypatch.setattr(proxy_process, "_REVIVE_PAUSE_S", 0.001)
    site = Site()
    await site.open(_OPEN)
    yield site
    await site.process.stop()
    site.listener.close()


async def test_proxy_that_reads_late(site: Site) -> None:
    """The gateway waits with what is too much for now; the end of an environment does not end the proxy."""
    channel = site.channel
    os.kill(channel._process.pid, signal.SIGSTOP)
    asked = [asyncio.ensure_future(site.open(NetworkRules.parse(_LONG))) for _ask in range(40)]
    await asyncio.sleep(0)
    site.process.close(_ENVIRONMENT)
    await asyncio.sleep(0)
    assert channel._unsent
    os.kill(channel._process.pid, signal.SIGCONT)
    await asyncio.gather(*asked, *site.process._telling)
    assert site.channel is channel
    with pytest.raises(NetworkUnavailable, match="not known"):
        await channel.ask("report", environment_id=_ENVIRONMENT)


async def test_closed_while_the_next_proxy_is_told(site: Site) -> None:
    """Its door stays shut, and what listened for it is let go of."""
    await site.lose_proxy()
    site.process.close(_ENVIRONMENT)
    site.may_listen.set()
    await settle(lambda: site.unlistened)
    with pytest.raises(NetworkUnavailable, match="not known"):
        await site.channel.ask("report", environment_id=_ENVIRONMENT)


async def test_changed_while_the_next_proxy_is_told(site: Site) -> None:
    """The rules that were said last are in force."""
    assert await site.status() == b"502"
    await site.lose_proxy()
    await site.open(_SHUT)
    site.may_listen.set()
    assert await site.status() == b"403"


async def test_change_whose_request_is_gone(site: Site) -> None:
    """The proxy may have applied it; it is told of the rules that stand."""
    os.kill(site.channel._process.pid, signal.SIGSTOP)
    asked = asyncio.ensure_future(site.open(_SHUT))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    os.kill(site.channel._process.pid, signal.SIGCONT)
    await asyncio.gather(*site.process._telling)
    assert await site.status() == b"502"


async def test_connections_are_in_the_log(site: Site) -> None:
    """One line for each that has ended, and one when there is no network any more; both outlive the environment."""
    with capture_logs() as lines:
        assert await site.status() == b"502"
        await settle(lambda: len(lines) == 1)
        site.process.close(_ENVIRONMENT)
        await settle(lambda: len(lines) == 2)
    about = {"environment_id": "env-1", "user_id": "user-1", "left_out": 0, "log_level": "info"}
    assert lines[0].pop("duration_ms") >= 0
    nothing = {"sent_bytes": 0, "received_bytes": 0}
    ended = {"host": "127.0.0.1", "port": 9, "verdict": "failed", "reason": "connection_failed"}
    assert lines == [
        {"event": "connection of an environment ended", **about, **nothing, **ended},
        {"event": "network of an environment closed", **about, **nothing, "allowed": 0, "denied": 0, "failed": 1},
    ]


async def test_the_last_lines_of_the_log(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is stopped has them of what was open until then."""
    # A proxy that the machine holds up for longer than the usual limit is left without them, which is not tried here.
    monkeypatch.setattr(proxy_process, "_GOODBYE_LIMIT_S", 30.0)
    reader, writer = await asyncio.open_connection(*site.listener.getsockname())
    async with asyncio.timeout(30):
        with socket.create_server(("127.0.0.1", 0)) as host:
            there = f"127.0.0.1:{host.getsockname()[1]}"
            await site.open(NetworkRules.parse([there]))
            writer.write(f"CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n\r\n".encode())
            assert (await reader.readline()).split()[1] == b"200"
            with capture_logs() as lines:
                await site.process.stop()
    writer.close()
    assert [(line["event"], line.get("verdict")) for line in lines] == [
        ("connection of an environment ended", "allowed"),
        ("network of an environment closed", None),
    ]


async def test_proxy_that_does_not_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may do later what it was told, and so is replaced; not for a report."""
    channel = site.channel
    monkeypatch.setattr(proxy_process, "_ASK_LIMIT_S", 0.01)
    os.kill(channel._process.pid, signal.SIGSTOP)
    with pytest.raises(NetworkUnavailable, match="did not answer"):
        await site.process.report(_ENVIRONMENT)
    assert site.channel is channel
    with pytest.raises(NetworkUnavailable, match="did not answer"):
        await site.open(_SHUT)
    assert channel._process.returncode is not None
    monkeypatch.undo()
    assert await site.status() == b"502"


def test_policy_that_is_too_long() -> None:
    """Refused at the start, for the proxy could not read it."""
    deny = ",".join(f"host-number-{number}.example.org" for number in range(2700))
    with pytest.raises(ConfigurationError, match="SANDGATE_NETWORK_DENY"):
        ProxyProcess(NetworkPolicy(deny=deny))
