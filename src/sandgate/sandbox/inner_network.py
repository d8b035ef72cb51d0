"""The network of one sandbox, as the gateway has it: which hosts it may reach, and what its code is told of that."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from sandgate.core.byte_stream import Stream
from sandgate.core.errors import LauncherUnavailable, SandboxFailed
from sandgate.core.execution import ExecutionRequest, Surroundings
from sandgate.core.ids import EnvironmentId
from sandgate.core.network import NetworkReport, NetworkRules
from sandgate.sandbox.commands import SandboxCommands
from sandgate.sandbox.proxy_process import ProxyProcess
from sandgate_agent import wire

_PROXIED = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
_CONNECT_LIMIT_S = 5.0
_NOT_PROXIED = "localhost,127.0.0.1,::1"


def proxy_variables(port: int) -> Mapping[str, str]:
    """What programs read to find a proxy on their own loopback."""
    url = f"http://127.0.0.1:{port}"
    return {**dict.fromkeys(_PROXIED, url), "no_proxy": _NOT_PROXIED, "NO_PROXY": _NOT_PROXIED}


class InnerNetwork:
    """See :class:`sandgate.sandbox.base.SandboxNetwork`. ``proxy`` is shared by all sandboxes."""

    def __init__(self, environment_id: EnvironmentId, commands: SandboxCommands, proxy: ProxyProcess) -> None:
        self._environment_id = environment_id
        self._commands = commands
        self._proxy = proxy
        self._variables: Mapping[str, str] = {}

    async def allow(self, rules: NetworkRules, owner: str) -> None:
        """See ``SandboxNetwork``."""
        await self._proxy.open(self._environment_id, owner, rules, self._listen, self.close)

    async def _listen(self) -> int:
        listener, port = await self._commands.listen()
        self._variables = proxy_variables(port)
        return listener

    async def close(self) -> None:
        """See ``SandboxNetwork``."""
        self.forget()
        with suppress(SandboxFailed, LauncherUnavailable):
            # Who connects then is told so at once; nobody takes what would wait there.
            await self._commands.unlisten()

    async def report(self) -> NetworkReport:
        """See ``SandboxNetwork``."""
        return await self._proxy.report(self._environment_id)

    async def dial(self, port: int) -> Stream:
        """See ``SandboxNetwork``."""
        try:
            return await self._dial(port, 4)
        except ConnectionRefusedError:
            # Some servers listen on the newer protocol only.
            return await self._dial(port, 6)

    async def _dial(self, port: int, family: int) -> Stream:
        sock, is_carried = await self._commands.dial(port, family)
        stream = Stream(sock)
        try:
            async with asyncio.timeout(_CONNECT_LIMIT_S):
                await (_arrive(stream) if is_carried else stream.connected())
        except TimeoutError:
            # It listens, and takes nobody.
            stream.close()
            raise ConnectionRefusedError from None
        except BaseException:
            stream.close()
            raise
        return stream

    def forget(self) -> None:
        """The sandbox has ended, or has no network any more."""
        self._variables = {}
        self._proxy.close(self._environment_id)

    def surround(self, request: ExecutionRequest) -> ExecutionRequest:
        """The request with the variables that its code needs to find the proxy; those that it comes with stay."""
        if not self._variables or request.files is not None:
            return request
        if request.command is not None:
            command = replace(request.command.command, env={**self._variables, **request.command.command.env})
            return replace(request, command=replace(request.command, command=command))
        around = request.around or Surroundings()
        return replace(request, around=replace(around, env={**self._variables, **around.env}))


async def _arrive(stream: Stream) -> None:
    """Wait until what carries a connection says that it is there. Raises ``OSError``."""
    if await stream.receive(1) != wire.READY:
        raise ConnectionRefusedError
