"""Sockets in the network namespace of a sandbox, for processes outside: connections get in and out without a route.

Each is made by a thread of its own that enters the namespace and ends there: the launcher itself is never in one,
whatever goes wrong. What is made belongs to the namespace for good. Source: setns(2), network_namespaces(7).
"""

import errno
import os
import socket
import threading
from collections.abc import Callable

from sandgate_agent import calls, system

_LOOPBACK = "127.0.0.1"
_LOOPBACK_6 = "::1"
_BACKLOG = 64
# Where programs look for a proxy as often as anywhere; another one when code has it already.
USUAL_PORT = 3128


def open_namespace(pid: int) -> int:
    """A descriptor of the network namespace of a process. Raises ``OSError``, also when it is the launcher's own."""
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if os.path.samestat(os.fstat(namespace), os.stat("/proc/self/ns/net")):
        os.close(namespace)
        raise OSError(errno.EPERM, "it has no network of its own")
    return namespace


def listen(namespace: int) -> socket.socket:
    """A socket that listens on the loopback of a namespace, at the usual port if that is free. Raises ``OSError``."""
    return _in_namespace(namespace, _listen)


def dial(namespace: int, port: int, *, is_new: bool) -> socket.socket:
    """A socket on its way to a port of a namespace's loopback: whether it gets there is seen when it can be written to.

    ``is_new``: by IPv6. Raises ``OSError``.
    """
    family, address = (socket.AF_INET6, _LOOPBACK_6) if is_new else (socket.AF_INET, _LOOPBACK)
    return _in_namespace(namespace, lambda: _connect(family, address, port))


def _listen() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        for port in (USUAL_PORT, 0):
            try:
                listener.bind((_LOOPBACK, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not port:
                    raise
            else:
                break
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _connect(family: int, address: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        sock.connect((address, port))
    except BlockingIOError:
        return sock
    except OSError:
        sock.close()
        raise
    return sock


def _in_namespace(namespace: int, make: Callable[[], socket.socket]) -> socket.socket:
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def work() -> None:
        enter = calls.prepare("setns", namespace, system.CLONE_NEWNET)
        try:
            if enter() < 0:
                raise calls.failure(enter)
            made.append(make())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="namespace")
    thread.start()
    thread.join()
    if not made:
        raise failed[0] if failed else OSError(errno.EIO, "nothing was made")
    return made[0]
