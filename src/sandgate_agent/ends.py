"""The descriptors between a child and the gateway: made before the fork, then divided among the three.

They have the same numbers for every child of a forker, so that everything that is done with them is prepared.
"""

import ctypes
import os
import struct
from typing import Callable, List, Sequence, Tuple

from sandgate_agent import calls, wire
from sandgate_agent.calls import Call
from sandgate_agent.messages import Letter

_AF_UNIX = 1
_SOCK_STREAM = 1
_SOCK_CLOEXEC = os.O_CLOEXEC
_SOL_SOCKET, _SO_SNDBUF = 1, 7
_PAIR_BYTES = 8
# The kernel doubles it, for what it adds to each piece.
_ROOM_BYTES = wire.ANSWER_LIMIT
_NUMBERS = struct.Struct("@6i")
_STANDARD = (0, 1, 2)

Settle = Callable[[int, int, int], List[Call]]
"""The calls by which a child takes its socket, standard output and standard error."""


def _lowest_free(taken: Sequence[int], count: int) -> List[int]:
    """The numbers that the kernel gives to what is opened next."""
    return [number for number in range(len(taken) + count) if number not in taken][:count]


class Ends:
    """The calls that open one child's socket and pipes, and those of everybody who has a part in them.

    In the order of their use: ``opening`` puts the numbers into ``numbers``; when those are not ``usual``, all that
    follows has to be prepared for them. ``opened`` completes what was opened; ``child`` is for the child; ``giving_up``
    closes the child's ends and ``handed_over`` the gateway's, after ``letter`` has taken them there.
    """

    def __init__(self, control: int, others: List[int], settle: Settle) -> None:
        """``control`` is the gateway's socket; neither it nor ``others`` are for children."""
        self._control = control
        self._others = others
        self._settle = settle
        self.numbers = ctypes.create_string_buffer(_NUMBERS.pack(*[-1] * 6), _NUMBERS.size)
        start = ctypes.addressof(self.numbers)
        pair, stdout, stderr = (ctypes.c_void_p(start + place * _PAIR_BYTES) for place in range(3))
        self.opening = (
            calls.prepare("socketpair", _AF_UNIX, _SOCK_STREAM | _SOCK_CLOEXEC, 0, pair),
            calls.prepare("pipe2", stdout, os.O_CLOEXEC),
            calls.prepare("pipe2", stderr, os.O_CLOEXEC),
        )
        self._prepare(*_lowest_free([*_STANDARD, control, *others], 6))

    def prepare(self) -> None:
        """Prepare everything for the numbers that were opened last."""
        self._prepare(*_NUMBERS.unpack(self.numbers.raw))

    def _prepare(self, *numbers: int) -> None:
        outer, inner, stdout, stdout_inside, stderr, stderr_inside = numbers
        # The child, of another identity, may open them by name; the gateway opens them anew for flags of its own. All
        # that a child may have to say fits its side of the socket, whether or not anybody reads.
        room = struct.pack("@i", _ROOM_BYTES)
        self.opened = (
            *(calls.prepare("fchmod", descriptor, 0o666) for descriptor in (stdout, stderr)),
            calls.prepare("setsockopt", inner, _SOL_SOCKET, _SO_SNDBUF, room, len(room)),
        )
        self.letter = Letter(self._control, wire.NUMBERED_BYTES, 3)
        self.letter.write(wire.pack_numbered(wire.CHILD, 0), [outer, stdout, stderr])
        self.put_number = self.letter.numbering()
        self.giving_up = _close(inner, stdout_inside, stderr_inside)
        self.handed_over = _close(outer, stdout, stderr)
        self.child = (
            *_close(self._control, *self._others, outer, stdout, stderr),
            *self._settle(inner, stdout_inside, stderr_inside),
        )
        self.usual = _NUMBERS.pack(*numbers)

    def drop(self) -> None:
        """Close those that have been opened, when not all could be."""
        for number in _NUMBERS.unpack(self.numbers.raw):
            calls.prepare("close", number)()

    def close(self) -> None:
        """Close all six."""
        calls.run(self.giving_up)
        calls.run(self.handed_over)


def _close(*descriptors: int) -> Tuple[Call, ...]:
    return tuple(calls.prepare("close", descriptor) for descriptor in descriptors)
