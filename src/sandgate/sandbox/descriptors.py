"""Messages that carry descriptors."""

import _socket
import array
import fcntl
import os
import resource
from contextlib import suppress
from typing import NamedTuple

_ITEM = array.array("i").itemsize
# Source: include/uapi/asm-generic/socket.h, since Linux 6.16
_SO_PASSRIGHTS = 83
# Eight bytes each, and enough for more than a thousand sandboxes.
_EXPECTED = 16_384


class Received(NamedTuple):
    """A message, and the descriptors that came with it; ``lacked`` when this process had no room for them."""

    message: bytes
    descriptors: list[int]
    lacked: bool = False


def receive_or_lack(channel: "_socket.socket", most_descriptors: int) -> Received:
    """See :func:`receive`; also tells whether none came because this process may have no more."""
    space = _socket.CMSG_SPACE(most_descriptors * _ITEM)
    message, ancillary, flags, _address = channel.recvmsg(65536, space, _socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % _ITEM])
    if flags & _socket.MSG_CTRUNC:
        for descriptor in found:
            os.close(descriptor)
        # As many as there was space for is what a sender of too many is given.
        return Received(message, [], lacked=_socket.CMSG_LEN((len(found) + 1) * _ITEM) <= space)
    return Received(message, list(found))


def receive(channel: "_socket.socket", most_descriptors: int) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it; an empty message is the end of the channel.

    None came when they were more than ``most_descriptors``, or this process may have no more: a part of them would be
    taken for the whole.
    """
    message, descriptors, _lacked = receive_or_lack(channel, most_descriptors)
    return message, descriptors


def send(channel: "_socket.socket", message: bytes, descriptors: list[int]) -> None:
    """Send one message with descriptors."""
    rights = array.array("i", descriptors)
    channel.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if descriptors else [])


def refuse(channel: "_socket.socket") -> None:
    """Have nobody send descriptors to a socket.

    They would be closed by this process, and what the last close of a file costs is up to who made it. Older kernels
    have no such switch; there the filter of system calls keeps a close from waiting.
    """
    with suppress(OSError):
        channel.setsockopt(_socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)


def expect_many() -> None:
    """Have the kernel's table of this process's descriptors be long at once; to be called before there are threads.

    It is doubled whenever it is full, and of a process with threads the kernel waits each time until nobody looks at
    the old one: 10 to 20 ms in the middle of whatever made or received the descriptor.
    Source: ``expand_fdtable`` in the kernel's fs/file.c
    """
    most, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = min(most if most != resource.RLIM_INFINITY else _EXPECTED, _EXPECTED) - 1
    with suppress(OSError):
        own = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # One that is open already is in a table of that length.
            if own < last:
                os.close(fcntl.fcntl(own, fcntl.F_DUPFD_CLOEXEC, last))
        finally:
            os.close(own)
