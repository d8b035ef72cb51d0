"""The launcher's side of a relay, with relays that say what they like."""

import os
import socket
from collections.abc import Iterator

import pytest

from sandgate.sandbox import descriptors
from sandgate.sandbox.launcher.gvisor.carrier import Carrier
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate_agent import wire


class Inside:
    """A relay by hand, and what the launcher came to know."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.control = socket.socket()
        self.blamed: list[str] = []
        self.ports: list[int] = []
        self.refused: list[OSError] = []
        self.carrier = Carrier(self.reactor, self._begin, self.blamed.append)

    def _begin(self, end: int) -> None:
        self.control.close()
        self.control = socket.socket(fileno=os.dup(end))

    def listen(self) -> None:
        """Ask for a listener."""
        self.carrier.listen(lambda _door, port: self.ports.append(port), self.refused.append)

    def take(self) -> socket.socket:
        """What the relay was sent last."""
        _message, (end,) = descriptors.receive(self.control, 1)
        return socket.socket(fileno=end)

    def say(self, message: bytes) -> None:
        """Say something to the launcher, which hears it."""
        self.control.send(message)
        self.hear()

    def hear(self) -> None:
        """Have the launcher hear what was said."""
        self.reactor._stopped = False
        self.reactor.call_later(0, self.reactor.stop)
        self.reactor.run()


@pytest.fixture
def inside() -> Iterator[Inside]:
    """A carrier of a sandbox that has just been made."""
    made = Inside()
    yield made
    made.carrier.close()
    made.carrier.close()
    assert made.reactor.allowance.held == 0
    made.control.close()
    made.reactor._selector.close()


def _port(number: int) -> bytes:
    return wire.pack_numbered(wire.LISTEN, number)


def test_a_listener_for_all_who_ask(inside: Inside) -> None:
    """Made once; who asks later is told at once."""
    inside.listen()
    inside.listen()
    with inside.take():
        inside.say(_port(3128))
        inside.listen()
    assert inside.ports == [3128, 3128, 3128]
    assert inside.reactor.allowance.held == 2


def test_one_that_is_let_go_of(inside: Inside) -> None:
    """What had waited for it is refused, its port is nobody's, and whoever has a copy sees the end."""
    inside.listen()
    first = inside.take()
    inside.carrier.unlisten()
    assert (first.recv(1), len(inside.refused)) == (b"", 1)
    inside.listen()
    second = inside.take()
    inside.say(_port(1))
    assert inside.ports == []
    inside.say(_port(2))
    assert inside.ports == [2]
    first.close()
    second.close()


def test_a_relay_that_cannot_listen(inside: Inside) -> None:
    """That is said, and it may be tried again."""
    inside.listen()
    inside.take().close()
    inside.say(_port(0))
    assert [error.strerror for error in inside.refused] == ["Cannot assign requested address"]
    inside.listen()
    inside.take().close()
    inside.say(_port(7))
    assert (inside.ports, inside.blamed) == ([7], [])


@pytest.mark.parametrize(
    "message", [b"", b"x", _port(65_536), wire.pack_numbered(wire.FREE, 1), b"x" * wire.MESSAGE_LIMIT]
)
def test_a_relay_that_lies(inside: Inside, message: bytes) -> None:
    """It ends its sandbox, and is not listened to any more."""
    inside.listen()
    inside.take().close()
    inside.say(message) if message else inside.control.close()
    inside.hear()
    assert len(inside.blamed) == 1
    assert inside.ports == []


def test_a_port_that_nobody_asked_for(inside: Inside) -> None:
    """Is a lie, too: or a relay could keep the launcher busy."""
    inside.listen()
    inside.take().close()
    inside.say(_port(3128))
    inside.say(_port(3129))
    assert (inside.ports, inside.blamed) == ([3128], ["its relay broke the protocol"])


def test_a_relay_that_takes_nothing(inside: Inside) -> None:
    """Whoever asks is refused once the kernel holds no more for it; nothing waits for it here."""
    outer: list[socket.socket] = []
    with pytest.raises(OSError, match="temporarily unavailable"):  # noqa: PT012 - until it is refused
        while len(outer) < 2000:
            outer.append(inside.carrier.dial(8000, is_new=False))
    for sock in outer:
        sock.close()
