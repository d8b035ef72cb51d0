"""The ends of a child that waits, as they come from inside: looked at before anything is believed of them."""

import errno
import os
import socket
import stat

from sandgate.sandbox import descriptors
from sandgate.sandbox.execution import WaitingChild
from sandgate_agent import wire

# Its socket and its two pipes.
CHILD_DESCRIPTORS = 3


def open_child(number: int, received: list[int]) -> WaitingChild:
    """The child behind these descriptors, which are taken over.

    Raises ``WireError``, or ``OSError`` when this process may have no descriptor more, and then none is.
    """
    if len(received) != CHILD_DESCRIPTORS:
        raise wire.WireError(f"expected {CHILD_DESCRIPTORS} descriptors of a child, got {len(received)}")
    channel, *pipes = received
    if not _is_stream(channel) or not all(stat.S_ISFIFO(os.fstat(pipe).st_mode) for pipe in pipes):
        raise wire.WireError("a child came without a socket and two pipes")
    try:
        for pipe in pipes:
            _open_anew(pipe)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise wire.WireError(f"the output of a child cannot be read: {error}") from error
    return WaitingChild(number, without_rights(channel), *pipes)


def without_rights(channel: int) -> socket.socket:
    """A socket to which nobody can send descriptors."""
    made = socket.socket(fileno=channel)
    descriptors.refuse(made)
    return made


def _open_anew(pipe: int) -> None:
    """Give a pipe flags of its own: whoever sent it may have kept a copy, and could make it block otherwise."""
    own = os.open(f"/proc/self/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.dup2(own, pipe, inheritable=False)
    os.close(own)


def _is_stream(descriptor: int) -> bool:
    """Whether it is a socket of the kind that a child reads its code from."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return False
    looked_at = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor)
    kind = [looked_at.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_DOMAIN, socket.SO_TYPE)]
    looked_at.detach()
    return kind == [socket.AF_UNIX, socket.SOCK_STREAM]
