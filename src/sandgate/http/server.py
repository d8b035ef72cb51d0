"""Serves the application on a socket, from its first connection to its last."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from sandgate.config.settings import Settings
from sandgate.http.protocol import BoundedProtocol
from sandgate.http.tls import Tls
from sandgate.http.tls_listener import TlsListener
from sandgate.http.wire_limits import TellRefused, WireLimits, tell_nobody

_KEEP_ALIVE_S = 60
_BACKLOG = 2048
# What is still being answered after the service was stopped is cut off after this time.
_LAST_ANSWERS_S = 5
# The date header has seconds.
_TICK_S = 1.0
# A client that vanished without a word is noticed after about two minutes, so that its execution ends.
_PROBE_AFTER_S, _PROBE_EVERY_S, _PROBES = 60, 15, 4


async def serve(
    app: ASGIApp,
    settings: Settings,
    sock: socket.socket,
    *,
    started: Callable[[], None],
    stop: asyncio.Event,
    drain: Callable[[], Awaitable[None]],
    tell_refused: TellRefused = tell_nobody,
) -> None:
    """Serve on a bound socket until ``stop`` is set; the socket is closed in the end.

    ``started`` is called once requests are answered. After ``stop`` no connection is accepted any more and idle ones
    are closed; then ``drain`` is awaited, while requests under way are still answered; then the rest is closed.
    ``tell_refused`` is called for each answer to what never became a request.
    Signals are the caller's affair. Runs on the running event loop, which should be uvloop's. Raises
    ``ConfigurationError`` when there is to be TLS and its files are of no use.
    """
    tls = Tls.of(settings)
    _probe_silent_clients(sock)
    limits = WireLimits.of(settings, tell_refused)
    config = uvicorn.Config(
        app,
        http=functools.partial(BoundedProtocol, limits=limits),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
        backlog=_BACKLOG,
    )
    await _Server(config, tls, limits, started, stop, drain).serve(sockets=[sock])


class _Server(uvicorn.Server):
    """uvicorn without signal handlers, and with a place for the service's own stop."""

    def __init__(
        self,
        config: uvicorn.Config,
        tls: Tls | None,
        limits: WireLimits,
        started: Callable[[], None],
        stop: asyncio.Event,
        drain: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._limits = limits
        self._on_started = started
        self._stop = stop
        self._drain = drain

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the caller."""
        yield

    async def main_loop(self) -> None:
        """Keep the date current until it is time to stop."""
        await self.on_tick(0)
        self._on_started()
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._stop.wait()
            await self.on_tick(0)
            if self._tls is not None:
                self._tls.follow()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        if self._tls is None:
            await super().startup(sockets)
            return
        await self.lifespan.startup()
        config = self.config

        def make_protocol() -> asyncio.Protocol:
            return config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )

        listeners = [TlsListener(sock, self._tls.context, self._limits, make_protocol) for sock in sockets or ()]
        for listener in listeners:
            listener.start(config.backlog)
        self.servers = listeners  # type: ignore[assignment]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let the service stop, finish what is open."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._drain()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedProtocol):
                connection.abort()


def _probe_silent_clients(sock: socket.socket) -> None:
    """Accepted connections inherit these from the listening socket."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_EVERY_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
