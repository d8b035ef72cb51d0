"""A connection's bytes, without buffers of our own: what is not read waits with whoever sent it."""

import asyncio
import os
import socket
from contextlib import suppress
from typing import Protocol

PIECE_BYTES = 64 * 1024


class ByteStream(Protocol):
    """Bytes both ways. One task reads and one writes at a time."""

    async def receive(self, most: int = PIECE_BYTES) -> bytes:
        """Some bytes, none at the end. Raises ``OSError``."""
        ...

    async def send(self, data: bytes) -> None:
        """Send all of it, as fast as it is taken. Raises ``OSError``."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Stream:
    """A connected stream socket. One task reads and one writes at a time; ``close`` ends both."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop = asyncio.get_running_loop()

    async def receive(self, most: int = PIECE_BYTES) -> bytes:
        """Some bytes, none at the end. Raises ``OSError``."""
        data = await self._loop.sock_recv(self._socket, most)
        # What is there at once is read without a pause, and then others would get no turn.
        await asyncio.sleep(0)
        return data

    async def send(self, data: bytes) -> None:
        """Send all of it, as fast as it is taken. Raises ``OSError``."""
        await self._loop.sock_sendall(self._socket, data)

    async def connected(self) -> None:
        """Wait until a connection that was begun is there. Raises ``OSError`` when it came to nothing."""
        there = self._loop.create_future()
        self._loop.add_writer(self._socket.fileno(), _note, there)
        try:
            await there
        finally:
            self._loop.remove_writer(self._socket.fileno())
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))

    def end(self) -> None:
        """Say that nothing more will be sent."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()


def _note(there: "asyncio.Future[None]") -> None:
    if not there.done():
        there.set_result(None)


async def connect(address: str, port: int) -> Stream:
    """A connection to an address, never to a name. Raises ``OSError``."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return Stream(sock)
