"""The proxy as a program: ``python -m sandgate.sandbox.proxy.main DESCRIPTOR``. Ends with the gateway."""

import asyncio
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from sandgate.core.clock import SystemClock
from sandgate.core.network import NetworkRules
from sandgate.sandbox import descriptors
from sandgate.sandbox.proxy import wire
from sandgate.sandbox.proxy.entrance import open_entrance
from sandgate.sandbox.proxy.notes import Note
from sandgate.sandbox.proxy.server import ProxyServer, make_gatekeeper
from sandgate_agent import system

# Behind the gateway when the processor is short.
_NICENESS = 5


class Control:
    """Does what the gateway says."""

    def __init__(self, channel: socket.socket, server: ProxyServer) -> None:
        self._channel = channel
        self._server = server

    async def run(self) -> None:
        """Until the gateway is gone."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                message, ends = descriptors.receive(self._channel, 1)
            except BlockingIOError:
                await self._wait(loop.add_reader, loop.remove_reader)
                continue
            if not message:
                return
            await self._serve(wire.unpack(message), ends)

    async def _serve(self, request: Mapping[str, Any], ends: list[int]) -> None:
        try:
            parts = await self._do(request, ends)
        except (OSError, ValueError) as error:
            parts = [{"ok": False, "error": str(error)}]
        for part in parts:
            await self._send(wire.pack({"number": request["number"], "ok": True, **part}))

    async def _send(self, message: bytes) -> None:
        """Send it, now or when the gateway has read some of what waits for it."""
        while True:
            try:
                self._channel.send(message)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._wait(loop.add_writer, loop.remove_writer)
            else:
                return

    async def _wait(self, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
        there = asyncio.Event()
        add(self._channel.fileno(), there.set)
        try:
            await there.wait()
        finally:
            remove(self._channel.fileno())

    async def _do(self, request: Mapping[str, Any], ends: list[int]) -> "list[dict[str, Any]]":
        environment_id = request["environment_id"]
        match request["verb"]:
            case "open":
                rules = NetworkRules.parse(request["allow"])
                await self._server.open(environment_id, request["owner"], rules, open_entrance(ends[0]))
            case "change":
                self._server.change(environment_id, NetworkRules.parse(request["allow"]))
            case "close":
                await self._server.close(environment_id)
            case "report":
                report = self._server.report(environment_id)
                return (
                    [{"ok": False, "error": "it is not known"}] if report is None else [*wire.report_in_parts(report)]
                )
        return [{}]


def say_to(channel: socket.socket, note: Note) -> bool:
    """Tell the gateway what is for the log; False when it does not read, which nobody waits for."""
    try:
        channel.send(wire.pack_note(note))
    except OSError:
        return False
    return True


async def _serve(channel: socket.socket) -> None:
    policy = wire.unpack_policy(channel.recv(wire.LONGEST_MESSAGE))
    channel.setblocking(False)
    server = ProxyServer(make_gatekeeper(policy), SystemClock(), partial(say_to, channel))
    try:
        await Control(channel, server).run()
    finally:
        await server.close_all()


def main() -> int:
    """Serve until the gateway lets go of its end of the channel, or dies."""
    system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL)
    system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
    system.set_process_name("sg-proxy")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.nice(_NICENESS)
    # A name server that does not answer holds a thread for no longer than a connection may take.
    os.environ.setdefault("RES_OPTIONS", "timeout:2 attempts:2")
    with suppress(ConnectionError), socket.socket(fileno=int(sys.argv[1])) as channel:
        asyncio.run(_serve(channel))
    return 0


if __name__ == "__main__":
    sys.exit(main())
