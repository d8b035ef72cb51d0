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
    end, *pipes = received
    if not all(stat.S_ISFIFO(os.fstat(pipe).st_mode) for pipe in pipes):
        raise wire.WireError("a child came without two pipes")
    channel = _as_stream(end)
    own: list[int] = []
    try:
        own += (_open_anew(pipe) for pipe in pipes)
    except OSError as error:
        channel.detach()
        for pipe in own:
            os.close(pipe)
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise wire.WireError(f"the output of a child cannot be read: {error}") from error
    for pipe in pipes:
        os.close(pipe)
    descriptors.refuse(channel)
    return WaitingChild(number, channel, *own)


def without_rights(channel: int) -> socket.socket:
    """A socket to which nobody can send descriptors."""
    made = socket.socket(fileno=channel)
    descriptors.refuse(made)
    return made


def _open_anew(pipe: int) -> int:
    """A pipe with flags of its own: whoever sent it may have kept a copy, and could make it block otherwise."""
    return os.open(f"/proc/self/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _as_stream(descriptor: int) -> socket.socket:
    """The socket that a child reads its code from. Raises ``WireError``, and then it is the caller's still."""
    try:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor)
    except OSError as error:
        raise wire.WireError(f"a child came without a socket: {error}") from error
    try:
        kind = [channel.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_DOMAIN, socket.SO_TYPE)]
    except OSError:
        kind = []
    if kind != [socket.AF_UNIX, socket.SOCK_STREAM]:
        channel.detach()
        raise wire.WireError("a child came with a socket of another kind")
    return channel
