"""Messages that carry descriptors."""

import _socket
import array

_ITEM = array.array("i").itemsize


def receive(channel: "_socket.socket", most_descriptors: int) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it; an empty message is the end of the channel."""
    space = _socket.CMSG_SPACE(most_descriptors * _ITEM)
    message, ancillary, _flags, _address = channel.recvmsg(65536, space, _socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % _ITEM])
    return message, list(found)


def send(channel: "_socket.socket", message: bytes, descriptors: list[int]) -> None:
    """Send one message with descriptors."""
    rights = array.array("i", descriptors)
    channel.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if descriptors else [])
