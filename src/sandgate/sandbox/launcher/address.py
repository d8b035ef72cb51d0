"""A Unix socket's address, however long the path of its folder is."""

import os
import socket
from collections.abc import Callable
from pathlib import Path


def at_short_path(path: Path, use: Callable[[str], None]) -> None:
    """Call ``use`` with a name of ``path`` that fits a socket address.

    The kernel takes 107 bytes; a descriptor of the folder stands for a folder of any length.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        use(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def connect(path: Path) -> socket.socket:
    """A connection to a listening SOCK_SEQPACKET socket, not blocking. Raises ``OSError``."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        at_short_path(path, connection.connect)
    except OSError:
        connection.close()
        raise
    connection.setblocking(False)
    return connection
