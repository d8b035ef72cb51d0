"""The launcher's side of a container's relay: connections in and out of a network that nothing outside can enter.

The other side is hostile: what it says is a number or the end of the sandbox, what it is given a socket at a time.
"""

import errno
import os
import socket
from collections.abc import Callable

from sandgate.sandbox import descriptors
from sandgate.sandbox.launcher.life import OnListening, OnRefusal
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate_agent import wire

_LARGEST_PORT = 65_535


class Carrier:
    """``begin(control)`` has a relay made at the other end of a socket, ``blame(reason)`` ends the sandbox.

    There is none before it is needed.
    """

    def __init__(self, reactor: Reactor, begin: Callable[[int], None], blame: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._begin = begin
        self._blame = blame
        self._control: socket.socket | None = None
        # What asks for sockets for who connects to the listener; the proxy has a copy.
        self._door: socket.socket | None = None
        self._port = 0
        # Answers that have not come, in the order of what was asked.
        self._due = 0
        self._waiting: list[tuple[OnListening, OnRefusal]] = []

    def dial(self, port: int, *, is_new: bool) -> socket.socket:
        """A socket that the relay connects to a port: ``READY`` comes out of it first. Raises ``OSError``."""
        outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with inner:
            try:
                self._say(wire.DIAL, port + (6 if is_new else 4) * wire.FAMILY, inner)
            except OSError:
                outer.close()
                raise
        outer.setblocking(False)
        descriptors.refuse(outer)
        return outer

    def listen(self, then: OnListening, refuse: OnRefusal) -> None:
        """``then`` is given what asks for sockets, which stays this object's, and the port of the listener."""
        if self._port and self._door is not None:
            then(self._door, self._port)
            return
        self._waiting.append((then, refuse))
        if self._door is not None:
            return
        try:
            self._open_door()
        except OSError as error:
            self._refuse(error)
            self.unlisten()

    def _open_door(self) -> None:
        self._reactor.allowance.take(1)
        try:
            self._door, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            self._reactor.allowance.give_back(1)
            raise
        with inner:
            self._door.setblocking(False)
            self._say(wire.LISTEN, 0, inner)
            self._due += 1

    def unlisten(self) -> None:
        """Have nobody listen any more, also for who has a copy."""
        door, self._door, self._port = self._door, None, 0
        if door is not None:
            door.shutdown(socket.SHUT_RDWR)
            door.close()
            self._reactor.allowance.give_back(1)
        self._refuse(OSError(errno.ECANCELED, os.strerror(errno.ECANCELED)))

    def _say(self, kind: bytes, number: int, inner: socket.socket) -> None:
        """Raises ``OSError``, also when the relay has not taken what it was sent before."""
        if self._control is None:
            self._control = self._make_relay()
            self._reactor.watch(self._control.fileno(), self._on_message, self._blame)
        descriptors.send(self._control, wire.pack_numbered(kind, number), [inner.fileno()])

    def _make_relay(self) -> socket.socket:
        self._reactor.allowance.take(1)
        try:
            control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            self._reactor.allowance.give_back(1)
            raise
        control.setblocking(False)
        descriptors.refuse(control)
        with inner:
            try:
                self._begin(inner.fileno())
            except OSError:
                self._reactor.allowance.give_back(1)
                control.close()
                raise
        return control

    def _on_message(self) -> None:
        assert self._control is not None  # noqa: S101 - it is what can be read
        try:
            message = self._control.recv(wire.MESSAGE_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        try:
            kind, port = wire.parse_numbered(message)
        except wire.WireError:
            kind, port = b"", 0
        if kind != wire.LISTEN or not self._due or port > _LARGEST_PORT:
            self._reactor.forget(self._control.fileno())
            self._blame("its relay broke the protocol" if message else "its relay ended")
            return
        self._due -= 1
        if not self._due and self._door is not None:
            self._on_port(self._door, port)

    def _on_port(self, door: socket.socket, port: int) -> None:
        if not port:
            self._refuse(OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)))
            self.unlisten()
            return
        self._port = port
        waiting, self._waiting = self._waiting, []
        for then, _refuse in waiting:
            then(door, port)

    def _refuse(self, error: OSError) -> None:
        waiting, self._waiting = self._waiting, []
        for _then, refuse in waiting:
            refuse(error)

    def close(self) -> None:
        """The sandbox has ended."""
        self.unlisten()
        if self._control is not None:
            self._reactor.forget(self._control.fileno())
            self._control.close()
            self._control = None
            self._reactor.allowance.give_back(1)
