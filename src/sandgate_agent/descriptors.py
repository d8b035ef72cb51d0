"""Messages that carry descriptors."""

import array
import socket
from typing import List, Tuple

_ITEM = array.array("i").itemsize


def receive(channel: socket.socket, most_descriptors: int) -> Tuple[bytes, List[int]]:
    """One message and the descriptors that came with it; an empty message is the end of the channel."""
    space = socket.CMSG_SPACE(most_descriptors * _ITEM)
    message, ancillary, _flags, _address = channel.recvmsg(65536, space, socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % _ITEM])
    return message, list(found)


def send(channel: socket.socket, message: bytes, descriptors: List[int]) -> None:
    """Send one message with descriptors."""
    rights = array.array("i", descriptors).tobytes()
    channel.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else [])
