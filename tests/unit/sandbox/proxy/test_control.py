"""The proxy answers a gateway that is slow."""

import asyncio
import json
import socket
from contextlib import suppress

from sandgate.core.clock import ManualClock
from sandgate.core.network import NetworkPolicy
from sandgate.sandbox.proxy.main import Control
from sandgate.sandbox.proxy.server import ProxyServer, make_gatekeeper
from tests.unit.sandbox.conftest import settle


async def test_gateway_that_reads_late() -> None:
    """The proxy waits with its answers until there is room."""
    channel, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.setblocking(False)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    server = ProxyServer(make_gatekeeper(NetworkPolicy()), ManualClock(), lambda _note: True)
    with channel, far:
        running = asyncio.ensure_future(Control(channel, server).run())
        for number in range(50):
            far.send(json.dumps({"number": number, "verb": "close", "environment_id": "env-1"}).encode())
        await settle()
        far.setblocking(False)
        numbers: list[int] = []
        while len(numbers) < 50:
            await asyncio.sleep(0)
            assert not running.done()
            with suppress(BlockingIOError):
                numbers.append(json.loads(far.recv(100))["number"])
        assert numbers == list(range(50))
        far.close()
        await running
