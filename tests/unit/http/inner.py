"""Servers in the place of those in environments."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from sandgate.core.ids import EnvironmentId
from tests.unit.http.site import ENVIRONMENTS, Site

Handler = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def saying(answer: bytes) -> Handler:
    """A server that answers the same to all."""

    async def handle(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return handle


class Inner:
    """A server of the test's own in the place of one in an environment, and what it has heard."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.heard: list[bytes] = []
        self.servers: list[asyncio.Server] = []
        self.tasks: list[asyncio.Task[None] | None] = []
        self.environment_id = ""

    async def serve(self, handler: Handler) -> str:
        """Serve at port 8000 of a new environment; the address of the port."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.tasks.append(asyncio.current_task())
            try:
                with suppress(asyncio.IncompleteReadError, ConnectionError):
                    head = await reader.readuntil(b"\r\n\r\n")
                    self.heard.append(head)
                    await handler(head, reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.servers.append(server)
        self.environment_id = await self.site.create_environment()
        live = self.site.service._lifecycle.find(EnvironmentId(self.environment_id))
        assert live is not None
        network: Any = (await live.wait_for_sandbox()).network
        network.ports[8000] = server.sockets[0].getsockname()[:2]
        return f"{ENVIRONMENTS}/{self.environment_id}/ports/8000"

    async def close(self) -> None:
        """End them, and whoever they serve."""
        for server in self.servers:
            server.close()
        tasks = [task for task in self.tasks if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # What is closed is let go of with the next turn.
        await asyncio.sleep(0)
