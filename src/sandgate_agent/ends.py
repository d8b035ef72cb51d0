"""The descriptors between a child and the gateway: made before the fork, then divided among the three.

They have the same numbers for every child of a forker, so that everything that is done with them is prepared.
"""

import ctypes
import os
import struct
from typing import Callable, List, Tuple

from sandgate_agent import calls, wire
from sandgate_agent.calls import Call
from sandgate_agent.messages import Letter

_AF_UNIX = 1
_SOCK_STREAM = 1
_SOCK_CLOEXEC = os.O_CLOEXEC
_SOL_SOCKET, _SO_SNDBUF = 1, 7
# Source: include/uapi/asm-generic/errno.h
_ETOOMANYREFS = 109
_PAIR_BYTES = 8
# The kernel doubles it, for what it adds to each piece.
_ROOM_BYTES = wire.ANSWER_LIMIT
_NUMBERS = struct.Struct("@6i")

Settle = Callable[[int, int, int], List[Call]]
"""The calls by which a child takes its socket, standard output and standard error."""


class AnyEnds:
    """One child's socket and pipes at a time, whoever makes them.

    ``child`` are the calls by which the child takes its own.
    """

    child: List[Call]

    def open(self) -> None:
        """Have them, before the fork. Raises ``OSError``."""
        raise NotImplementedError

    def hand_over(self, number: int) -> bool:
        """After the fork: keep none, and tell the gateway of the child. Raises ``OSError`` when it is gone.

        False when the child has nobody to talk to, and ends by itself.
        """
        raise NotImplementedError

    def close(self) -> None:
        """There is no child."""
        raise NotImplementedError


class Ends(AnyEnds):
    """Made here, and handed to the gateway."""

    def __init__(self, control: int, others: List[int], settle: Settle) -> None:
        """``control`` is the gateway's socket; neither it nor ``others`` are for children."""
        self._control = control
        self._others = others
        self._settle = settle
        self._numbers = ctypes.create_string_buffer(_NUMBERS.size)
        start = ctypes.addressof(self._numbers)
        pair, stdout, stderr = (ctypes.c_void_p(start + place * _PAIR_BYTES) for place in range(3))
        self._opening = [
            calls.prepare("socketpair", _AF_UNIX, _SOCK_STREAM | _SOCK_CLOEXEC, 0, pair),
            calls.prepare("pipe2", stdout, os.O_CLOEXEC),
            calls.prepare("pipe2", stderr, os.O_CLOEXEC),
        ]
        self._prepared_for = b""

    def open(self) -> None:
        """Make them. Raises ``OSError``."""
        calls.run(self._opening)
        if self._numbers.raw != self._prepared_for:
            self._prepare()
        calls.run(self._opened)

    def _prepare(self) -> None:
        numbers: Tuple[int, ...] = _NUMBERS.unpack(self._numbers.raw)
        outer, inner, stdout, stdout_inside, stderr, stderr_inside = numbers
        # The child, of another identity, may open them by name; the gateway opens them anew for flags of its own.
        self._opened = [calls.prepare("fchmod", descriptor, 0o666) for descriptor in (stdout, stderr)]
        # All that a child may have to say fits its side of the socket, whether or not anybody reads.
        room = struct.pack("@i", _ROOM_BYTES)
        self._opened.append(calls.prepare("setsockopt", inner, _SOL_SOCKET, _SO_SNDBUF, room, len(room)))
        self._letter = Letter(self._control, wire.NUMBERED_BYTES, 3)
        self._letter.write(wire.pack_numbered(wire.CHILD, 0), [outer, stdout, stderr])
        self._giving_up = _close(inner, stdout_inside, stderr_inside)
        self._sent = _close(outer, stdout, stderr)
        self.child = [
            *_close(self._control, *self._others, outer, stdout, stderr),
            *self._settle(inner, stdout_inside, stderr_inside),
        ]
        self._prepared_for = self._numbers.raw

    def hand_over(self, number: int) -> bool:
        """After the fork: give the gateway its ends, and keep none. Raises ``OSError`` when it is gone.

        False when too many descriptors of this user are on their way already; then nobody has them.
        """
        self._letter.put(wire.pack_numbered(wire.CHILD, number))
        calls.run(self._giving_up)
        handed_over = self._letter.send() >= 0
        error = None if handed_over else calls.failure(self._letter.send)
        calls.run(self._sent)
        if error is not None and error.errno != _ETOOMANYREFS:
            raise error
        return handed_over

    def close(self) -> None:
        """Keep none, because there is no child."""
        calls.run(self._giving_up)
        calls.run(self._sent)


def _close(*descriptors: int) -> List[Call]:
    return [calls.prepare("close", descriptor) for descriptor in descriptors]
