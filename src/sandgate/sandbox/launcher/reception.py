"""Where gateways come in, one at a time: the next one takes the place of the last with its first word."""

import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from sandgate.sandbox import descriptors
from sandgate.sandbox.launcher import protocol
from sandgate.sandbox.launcher.address import at_short_path
from sandgate.sandbox.launcher.config import LauncherConfig
from sandgate.sandbox.launcher.fields import ProtocolError
from sandgate.sandbox.launcher.kept import MOST_ENDS
from sandgate.sandbox.launcher.last_words import has_spoken, last_words
from sandgate.sandbox.launcher.log import log
from sandgate.sandbox.launcher.reactor import Reactor

_SENT_AHEAD_BYTES = 1 << 20
# So many may have connected and not said a word; of more, who has been silent for longest is sent away.
_MOST_SILENT = 16
# How long nobody is let in after that has failed.
_PAUSE_S = 0.1

Act = Callable[[int, protocol.Request, list[int]], None]


class Reception:
    """``on_new()`` when a gateway has come, ``act(number, request, received)`` for what it asks; the descriptors that
    came with a request are whoever acts on it's then.
    """

    def __init__(self, config: LauncherConfig, reactor: Reactor, on_new: Callable[[], None], act: Act) -> None:
        self._config = config
        self._reactor = reactor
        self._on_new = on_new
        self._act = act
        self._connection: socket.socket | None = None
        self._silent: deque[socket.socket] = deque()

    def open(self) -> None:
        """Listen. Raises ``OSError``."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._config.socket_path.unlink(missing_ok=True)
        at_short_path(self._config.socket_path, self._listener.bind)
        self._let_gateway_connect()
        self._listener.listen(4)
        self._listener.setblocking(False)
        self._let_in()

    def close(self) -> None:
        """Nobody finds it any more."""
        self._config.socket_path.unlink(missing_ok=True)

    def _let_gateway_connect(self) -> None:
        """Only root can give the socket to another user; otherwise who connects is seen when he does."""
        own = os.geteuid()
        os.chmod(self._config.socket_path, 0o600 if own in (0, self._config.gateway_uid) else 0o666)
        if own == 0:
            os.chown(self._config.socket_path, self._config.gateway_uid, -1)

    def _let_in(self) -> None:
        self._reactor.watch(self._listener.fileno(), self._accept, self._pause)

    def _pause(self, reason: str) -> None:
        """Nobody can be let in now, and whoever waits would be seen again at once."""
        log(f"no gateway is let in for a moment: {reason}")
        self._reactor.forget(self._listener.fileno())
        self._reactor.call_later(_PAUSE_S, self._let_in)

    def _accept(self) -> None:
        try:
            connection, _address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._pause(str(error))
            return
        _pid, uid, _gid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, self._config.gateway_uid):
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SENT_AHEAD_BYTES)
        if len(self._silent) >= _MOST_SILENT:
            self._send_away(self._silent[0])
        self._silent.append(connection)
        # It takes the gateway's place with its first word only: some connect to see whether anybody listens.
        self._reactor.watch(
            connection.fileno(), lambda: self._on_first_word(connection), lambda _reason: self._send_away(connection)
        )

    def _send_away(self, connection: socket.socket) -> None:
        with suppress(ValueError):
            self._silent.remove(connection)
        if connection.fileno() >= 0:
            self._reactor.forget(connection.fileno())
            connection.close()

    def _on_first_word(self, connection: socket.socket) -> None:
        if not has_spoken(connection):
            self._send_away(connection)
            return
        self._reactor.forget(connection.fileno())
        self._silent.remove(connection)
        self.disconnect()
        self._connection = connection
        self._on_new()
        self._reactor.watch(connection.fileno(), self._on_request, lambda _reason: self.disconnect())
        self._on_request()

    def disconnect(self) -> None:
        """Let the gateway go, and hear what it wanted kept before it went."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._reactor.forget(connection.fileno())
            for number, request, received in last_words(connection):
                self._act(number, request, received)
            connection.close()

    def send(self, message: Mapping[str, Any], ends: list[int]) -> None:
        """Say something to the gateway, if there is one."""
        if self._connection is None:
            return
        try:
            descriptors.send(self._connection, protocol.pack(message), ends)
        except OSError as error:
            # It is gone, or has not read for a megabyte; it finds out what it missed when it comes back.
            log(f"the gateway does not listen: {error}")
            self.disconnect()

    def _on_request(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            data, received = descriptors.receive(connection, MOST_ENDS + 1)
        except BlockingIOError:
            return
        except OSError:
            data, received = b"", []
        if not data:
            self.disconnect()
            return
        try:
            number, request = protocol.parse_request(data)
        except ProtocolError as error:
            log(f"refused a request: {error}")
            for descriptor in received:
                os.close(descriptor)
            if error.number is None:
                # Nobody can be answered, and what comes next may be as little what it is taken for.
                self.disconnect()
            elif error.number:
                # All else that is asked of this gateway has nothing to do with it.
                self.send({"number": error.number, "ok": False, "error": f"it was refused: {error}"}, [])
            return
        self._act(number, request, received)
