"""Takes connections that speak TLS. No more of them are in their handshake than may be served."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from ssl import SSLContext

from sandgate.http.wire_limits import WireLimits
from sandgate.telemetry.log import get_logger

_HANDSHAKE_S = 10.0
_GOODBYE_S = 2.0
_MOST_AT_A_TIME = 64
# After a connection that could not be taken, for want of descriptors.
_PAUSE_S = 0.2

_log = get_logger(__name__)


class TlsListener:
    """Listens until ``close``.

    Whoever opens connections and says nothing has no request that could be counted or refused: what is beyond the
    limits is closed without a word.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: SSLContext,
        limits: WireLimits,
        make_protocol: Callable[[], asyncio.Protocol],
    ) -> None:
        self._sock = sock
        self._context = context
        self._limits = limits
        self._make_protocol = make_protocol
        self._shaking: set[asyncio.Task[None]] = set()
        self._held: Counter[str] = Counter()
        self._is_closed = False

    def start(self, backlog: int) -> None:
        """Take connections from now on."""
        self._sock.setblocking(False)
        self._sock.listen(backlog)
        self._listen()

    def close(self) -> None:
        """Take no more; handshakes that are under way are broken off."""
        if self._is_closed:
            return
        self._is_closed = True
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()
        for shaking in self._shaking:
            shaking.cancel()

    async def wait_closed(self) -> None:
        """Wait until nothing of it is left."""
        if self._shaking:
            await asyncio.wait(self._shaking)

    def _listen(self) -> None:
        if not self._is_closed:
            asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(_MOST_AT_A_TIME):
            try:
                connection, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as fault:
                _log.error("a connection could not be taken", reason=fault.strerror)
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._sock)
                loop.call_later(_PAUSE_S, self._listen)
                return
            self._take(connection, self._limits.place_of(peer))

    def _take(self, connection: socket.socket, place: str | None) -> None:
        limits = self._limits
        crowds = place is not None and self._held[place] >= limits.max_of_address
        if crowds or len(self._shaking) >= limits.max_connections:
            connection.close()
            return
        connection.setblocking(False)
        if place is not None:
            self._held[place] += 1
        shaking = asyncio.get_running_loop().create_task(self._shake_hands(connection, place), name="TLS handshake")
        self._shaking.add(shaking)
        shaking.add_done_callback(self._shaking.discard)

    async def _shake_hands(self, connection: socket.socket, place: str | None) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make_protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=_HANDSHAKE_S,
                ssl_shutdown_timeout=_GOODBYE_S,
            )
        except OSError as fault:
            # No TLS, or none that both speak, or too slow: the connection is closed.
            _log.debug("no connection by TLS", reason=str(fault))
        finally:
            if place is not None:
                self._held[place] -= 1
                if not self._held[place]:
                    del self._held[place]
