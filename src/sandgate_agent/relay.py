"""Carries bytes between the loopback of a container and sockets that come in: nothing but bytes can get out of one.

A connection to a port inside is begun for a socket that the launcher sends; ``READY`` goes out on it once it is there,
and its end when it cannot be had. For a connection to the listener, ``WAITS`` asks for a socket, and is answered with
one. There are no buffers but one piece for each direction: who does not read makes who writes wait.

It runs in a process of its own, which has no power over anything, and holds nothing but what passes.
"""

import _socket
import errno
import os
from typing import Any, Callable, Dict, List, Optional, Tuple

from sandgate_agent import calls, system, wire
from sandgate_agent.messages import Letter, close_all

_USER_ID = 65_534
_PIECE_BYTES = 64 * 1024
_BACKLOG = 64
# The bounds that matter are held outside: this one is on what a mistake there could cost.
_MOST_CONNECTIONS = 1024
_RLIMIT_NOFILE = 7
_OPEN_FILES = 2 * _MOST_CONNECTIONS + 64
# Where programs look for a proxy as often as anywhere; another one when code has it already.
_USUAL_PORT = 3128
_FAMILIES = {4: (_socket.AF_INET, "127.0.0.1"), 6: (_socket.AF_INET6, "::1")}
# Source: include/uapi/linux/eventpoll.h
_IN, _OUT, _ERR, _HUP = 1, 4, 8, 16

Watch = Callable[[int, int], None]


class _End:
    """One of the two ends of a connection. What was read at the other one waits here until it is written."""

    __slots__ = ("deaf", "ended", "other", "sock", "told", "waiting")

    def __init__(self, sock: "_socket.socket") -> None:
        sock.setblocking(False)
        self.sock = sock
        self.other = self
        self.waiting = b""
        # Whether there is no more to be read, nobody takes what is written, and that was said that no more comes.
        self.ended = self.deaf = self.told = False

    def read(self) -> None:
        """Take one piece, and write what of it the other end takes at once."""
        try:
            piece = self.sock.recv(_PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.ended = self.deaf = True
            return
        if not piece:
            self.ended = True
            return
        self.other.waiting = piece
        self.other.write()

    def write(self) -> None:
        """Write what waits, as much as is taken."""
        try:
            self.waiting = self.waiting[self.sock.send(self.waiting) :]
        except BlockingIOError:
            return
        except OSError:
            self.deaf = True

    def settle(self) -> None:
        """Pass on that nothing more comes."""
        if self.deaf:
            self.waiting = b""
            self.other.ended = True
        elif self.other.ended and not self.waiting and not self.told:
            self.told = True
            try:
                self.sock.shutdown(_socket.SHUT_WR)
            except OSError:
                self.deaf = True

    @property
    def is_done(self) -> bool:
        """Whether nothing more can come from here, nor has to be written."""
        return self.ended and not self.waiting

    @property
    def wanted(self) -> int:
        """What is waited for here; less than 0 when what cannot be left out has been seen already."""
        wanted = (0 if self.ended or self.other.waiting else _IN) | (_OUT if self.waiting else 0)
        return wanted if wanted or not self.deaf else -1


class Connection:
    """``inner`` is on its way to a port inside, or was taken from the listener; ``outer`` came in."""

    def __init__(self, inner: "_socket.socket", outer: "_socket.socket", watch: Watch, is_there: bool) -> None:
        self._inner, self._outer = _End(inner), _End(outer)
        self._inner.other, self._outer.other = self._outer, self._inner
        self._watch = watch
        self._is_there = is_there
        self.numbers = (inner.fileno(), outer.fileno())
        if is_there:
            self._watch_both()
        else:
            # That whoever asked is gone is told in any case.
            watch(self.numbers[0], _OUT)
            watch(self.numbers[1], 0)

    def on_event(self, number: int, found: int) -> bool:
        """Something happened at one of its ends; False when the connection has ended."""
        if not self._is_there:
            return number == self.numbers[0] and self._arrive()
        end = self._inner if number == self.numbers[0] else self._outer
        if end.waiting:
            end.write()
        if not end.ended and not end.other.waiting and found & (_IN | _HUP | _ERR):
            end.read()
        elif found & (_HUP | _ERR):
            end.deaf = True
        self._inner.settle()
        self._outer.settle()
        if self._inner.is_done and self._outer.is_done:
            return False
        self._watch_both()
        return True

    def _watch_both(self) -> None:
        for end in (self._inner, self._outer):
            self._watch(end.sock.fileno(), end.wanted)

    def _arrive(self) -> bool:
        """Whether it has come to its port."""
        if self._inner.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR):
            return False
        try:
            self._outer.sock.send(wire.READY)
        except OSError:
            return False
        self._is_there = True
        self._watch_both()
        return True

    def close(self) -> None:
        """Let go of both."""
        self._inner.sock.close()
        self._outer.sock.close()


class Gate:
    """The listener, and the socket by which others are asked for, for who connects to it."""

    def __init__(self, door: int) -> None:
        """Raises ``OSError``."""
        self.door = door
        self._letter = Letter(door, 1, 1)
        # Somebody waits, and a socket for it was asked for.
        self.has_asked = False
        self.listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        try:
            self.port = self._listen()
        except OSError:
            self.listener.close()
            raise

    def _listen(self) -> int:
        for port in (_USUAL_PORT, 0):
            try:
                self.listener.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not port:
                    raise
            else:
                break
        self.listener.listen(_BACKLOG)
        self.listener.setblocking(False)
        return int(self.listener.getsockname()[1])

    def ask(self) -> None:
        """Ask for a socket. Raises ``OSError``."""
        self.has_asked = True
        os.write(self.door, wire.WAITS)

    def receive(self) -> Optional[Tuple[int, int]]:
        """What has come, for whoever waits: the number of his connection and its own; None when nobody does.

        Raises ``OSError`` when nothing will come any more.
        """
        message, given = self._letter.receive()
        if not message:
            raise ConnectionResetError("the end of the door")
        self.has_asked = False
        if len(given) != 1:
            close_all(given)
            return None
        try:
            return self.listener._accept()[0], given[0]  # type: ignore[attr-defined]
        except OSError:
            # Gone again.
            close_all(given)
            return None

    def close(self) -> None:
        """Nobody is listened to any more."""
        self.listener.close()
        os.close(self.door)


class Relay:
    """Serves one container."""

    def __init__(self, control: int) -> None:
        # Not before somebody needs it: the zygote does without.
        import select

        self._epoll: Any = select.epoll()
        self._control = control
        self._letter = Letter(control, wire.NUMBERED_BYTES, 1)
        self._gate: Optional[Gate] = None
        self._connections: Dict[int, Connection] = {}
        self._watched: Dict[int, int] = {}
        self._watch(control, _IN)

    def run(self) -> None:
        """Until the launcher is gone."""
        while True:
            others = []
            for number, found in self._epoll.poll():
                connection = self._connections.get(number)
                if connection is None:
                    # What begins gets numbers that may have been another's in this round; and one that is not watched
                    # any more was the other end of a connection that has ended in it.
                    if number in self._watched:
                        others.append(number)
                elif not connection.on_event(number, found):
                    self._end(connection)
            for number in others:
                if number == self._control:
                    if not self._hear():
                        return
                elif self._gate is not None:
                    self._on_gate(self._gate, number)

    def _watch(self, number: int, wanted: int) -> None:
        """Wait for something else from now on; for nothing at all when it is less than 0."""
        known = self._watched.get(number)
        if known == wanted or (known is None and wanted < 0):
            return
        if wanted < 0:
            del self._watched[number]
            self._epoll.unregister(number)
        else:
            self._watched[number] = wanted
            (self._epoll.register if known is None else self._epoll.modify)(number, wanted)

    def _add(self, inner: "_socket.socket", outer: int, is_there: bool) -> None:
        connection = Connection(inner, _socket.socket(fileno=outer), self._watch, is_there)
        self._connections.update(dict.fromkeys(connection.numbers, connection))
        self._watch_gate()

    def _end(self, connection: Connection) -> None:
        for number in connection.numbers:
            self._watch(number, -1)
            del self._connections[number]
        connection.close()
        self._watch_gate()

    def _hear(self) -> bool:
        message, given = self._letter.receive()
        if not message:
            return False
        kind, number = wire.parse_numbered(message)
        if len(given) != 1:
            close_all(given)
        elif kind == wire.DIAL:
            self._dial(number % wire.FAMILY, number // wire.FAMILY, given[0])
        elif kind == wire.LISTEN:
            os.write(self._control, wire.pack_numbered(wire.LISTEN, self._listen(given[0])))
        else:
            close_all(given)
        return True

    def _dial(self, port: int, family: int, outer: int) -> None:
        kind, address = _FAMILIES[family]
        if len(self._connections) >= 2 * _MOST_CONNECTIONS:
            os.close(outer)
            return
        try:
            inner = _socket.socket(kind, _socket.SOCK_STREAM)
        except OSError:
            # What this kernel has no room for is refused, and nothing else is concerned.
            os.close(outer)
            return
        inner.setblocking(False)
        if inner.connect_ex((address, port)) not in (0, errno.EINPROGRESS):
            inner.close()
            os.close(outer)
            return
        self._add(inner, outer, False)

    def _listen(self, door: int) -> int:
        """The port; 0 when there is none to be had."""
        self._close_gate()
        try:
            self._gate = Gate(door)
        except OSError:
            os.close(door)
            return 0
        self._watch(door, _IN)
        self._watch_gate()
        return self._gate.port

    def _watch_gate(self) -> None:
        gate = self._gate
        if gate is not None:
            busy = gate.has_asked or len(self._connections) >= 2 * _MOST_CONNECTIONS
            self._watch(gate.listener.fileno(), -1 if busy else _IN)

    def _on_gate(self, gate: Gate, number: int) -> None:
        try:
            if number != gate.door:
                gate.ask()
            else:
                pair = gate.receive()
                if pair is not None:
                    self._add(_socket.socket(fileno=pair[0]), pair[1], True)
        except OSError:
            self._close_gate()
        self._watch_gate()

    def _close_gate(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            self._watch(gate.door, -1)
            self._watch(gate.listener.fileno(), -1)
            gate.close()


def prepare(filter_: system.Filter) -> List[calls.Call]:
    """By which a process gives up whatever a relay does not need."""
    return [
        system.prepare_limit(_RLIMIT_NOFILE, _OPEN_FILES),
        *system.prepare_bounding_set_drop(),
        *system.prepare_identity(_USER_ID),
        system.prepare_capabilities(()),
        system.prepare_prctl(system.PR_SET_NO_NEW_PRIVS, 1),
        filter_.install,
        system.prepare_process_name("sg-relay"),
    ]
