"""Datagrams with descriptors, on buffers that are made once.

Source: struct msghdr, struct iovec and struct cmsghdr in glibc's bits/socket.h, for 64 bits; recvmsg(2), cmsg(3).
"""

import ctypes
import os
import struct
from functools import partial
from typing import Callable, List, Tuple

from sandgate_agent import calls

_HEADER = struct.Struct("@PIPNPNi4x")
_PIECE = struct.Struct("@PN")
_CONTROL = struct.Struct("@Nii")
_SOL_SOCKET = 1
_SCM_RIGHTS = 1
_MSG_CMSG_CLOEXEC = 0x40000000
_DESCRIPTOR_BYTES = 4


class Letter:
    """One message's buffers, and the calls that send it to or receive it from a socket.

    Another message in the same buffers takes the place of the one before.
    """

    def __init__(self, socket: int, size: int, most_descriptors: int) -> None:
        self._text = ctypes.create_string_buffer(size)
        self._piece = ctypes.create_string_buffer(_PIECE.pack(ctypes.addressof(self._text), size))
        # Aligned as the kernel counts it: the last item is padded to the size of a word.
        space = _CONTROL.size + (most_descriptors * _DESCRIPTOR_BYTES + 7) // 8 * 8
        self._control = ctypes.create_string_buffer(space)
        places = (0, 0, ctypes.addressof(self._piece), 1, ctypes.addressof(self._control))
        self._empty = _HEADER.pack(*places, space, 0)
        self._places = places
        self._header = ctypes.create_string_buffer(self._empty, _HEADER.size)
        self.send = calls.prepare("sendmsg", socket, self._header, 0)
        self._receive = calls.prepare("recvmsg", socket, self._header, _MSG_CMSG_CLOEXEC)

    def write(self, text: bytes, descriptors: List[int]) -> None:
        """Make this the message that :attr:`send` sends."""
        self.put(text)
        _PIECE.pack_into(self._piece, 0, ctypes.addressof(self._text), len(text))
        rights = struct.pack("@{}i".format(len(descriptors)), *descriptors)
        length = _CONTROL.size + len(rights)
        ctypes.memmove(self._control, _CONTROL.pack(length, _SOL_SOCKET, _SCM_RIGHTS) + rights, length)
        _HEADER.pack_into(self._header, 0, *self._places, length, 0)

    def put(self, text: bytes) -> None:
        """Change the text to another of the same length."""
        ctypes.memmove(self._text, text, len(text))

    def numbering(self) -> Callable[[int], None]:
        """What changes the number in a numbered message, as a call of one C function."""
        return partial(struct.Struct("!Q").pack_into, self._text, 1)

    def receive(self) -> Tuple[bytes, List[int]]:
        """Wait for a message and the descriptors that come with it; an empty text is the end of the channel.

        What does not fit the buffers is cut off, and descriptors without a place are closed by the kernel. Raises
        ``OSError``.
        """
        ctypes.memmove(self._header, self._empty, _HEADER.size)
        length = self._receive()
        if length < 0:
            raise calls.failure(self._receive)
        return ctypes.string_at(self._text, length), self._rights()

    def _rights(self) -> List[int]:
        space = _HEADER.unpack(self._header.raw)[5]
        if space < _CONTROL.size:
            return []
        length, level, kind = _CONTROL.unpack_from(self._control.raw)
        if (level, kind) != (_SOL_SOCKET, _SCM_RIGHTS):
            return []
        count = (min(length, space) - _CONTROL.size) // _DESCRIPTOR_BYTES
        return list(struct.unpack_from("@{}i".format(count), self._control.raw, _CONTROL.size))


def close_all(descriptors: List[int]) -> None:
    """Close descriptors that came with a message."""
    for descriptor in descriptors:
        os.close(descriptor)
