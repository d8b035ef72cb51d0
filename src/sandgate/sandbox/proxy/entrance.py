"""Where connections of an environment come from: a listener on its loopback, or a relay inside that asks for them."""

import socket
from contextlib import suppress
from typing import Protocol

from sandgate.sandbox import descriptors
from sandgate_agent import wire

# The kernel makes the least that it can of it, which is room for a few messages. Descriptors that are on their way are
# counted for the user that all environments share: who does not take what he has asked for gets no more of them.
_LEAST_BYTES = 1


class Entrance(Protocol):
    """What can be read when somebody waits."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...

    def accept(self) -> socket.socket:
        """Take a connection. Raises ``OSError``, ``BlockingIOError`` when nobody waits, ``EOFError`` at the end."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Listener:
    """A listener, from which connections are taken."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock

    def fileno(self) -> int:
        """See :class:`Entrance`."""
        return self._socket.fileno()

    def accept(self) -> socket.socket:
        """See :class:`Entrance`."""
        return self._socket.accept()[0]

    def close(self) -> None:
        """See :class:`Entrance`."""
        self._socket.close()


class Hatch:
    """A socket of type SOCK_SEQPACKET over which a relay asks for one end of a connection at a time."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LEAST_BYTES)
        descriptors.refuse(sock)
        self._socket = sock

    def fileno(self) -> int:
        """See :class:`Entrance`."""
        return self._socket.fileno()

    def accept(self) -> socket.socket:
        """See :class:`Entrance`. Nobody is forgotten when this process dies before all of it is done."""
        try:
            if not self._socket.recv(1, socket.MSG_PEEK):
                raise EOFError
            outer = self._give_one()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise EOFError from error
        with suppress(OSError):
            self._socket.recv(1)
        return outer

    def _give_one(self) -> socket.socket:
        outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with inner:
                descriptors.send(self._socket, wire.GO, [inner.fileno()])
        except BlockingIOError as error:
            outer.close()
            raise ConnectionAbortedError("what was asked for before was not taken") from error
        except OSError:
            outer.close()
            raise
        descriptors.refuse(outer)
        return outer

    def close(self) -> None:
        """See :class:`Entrance`."""
        self._socket.close()


def open_entrance(descriptor: int) -> Entrance:
    """What a descriptor is of the two."""
    sock = socket.socket(fileno=descriptor)
    return Hatch(sock) if sock.family is socket.AF_UNIX else Listener(sock)
