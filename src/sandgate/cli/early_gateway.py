"""The process that is to be the gateway, begun before it is known what it is to serve.

It imports what it needs while the machine is looked at and the launcher starts: each takes about as long.
"""

import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn, TypeVar

from sandgate.core.last_resort import say
from sandgate_agent import system

_LENGTH_BYTES = 8
_MOST_DESCRIPTORS = 8

OrderT = TypeVar("OrderT")


def end_with(serve: Callable[[], int]) -> NoReturn:
    """In the process of a gateway: serve, and end with the code that this answers."""
    code = 1
    try:
        code = serve()
    except BaseException:
        # Nothing may return into the code of whoever forked it, and nothing may end without a word.
        say(traceback.format_exc())
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


class EarlyGateway:
    """Begins at once, and ends with the block unless it has been told what to do.

    ``prepare()`` is called in the process; then ``serve(order, descriptors)`` with what :meth:`order` was given, which
    answers its exit code.
    """

    def __init__(self, prepare: Callable[[], object], serve: Callable[[OrderT, Sequence[int]], int]) -> None:
        self._socket, theirs = socket.socketpair()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            self._socket.close()
            end_with(lambda: _wait(parent, theirs, prepare, serve))
        theirs.close()
        self._ordered = False

    def __enter__(self) -> "EarlyGateway":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()
        if not self._ordered:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def order(self, order: object, descriptors: Sequence[int]) -> int:
        """Have it serve; its process id, which is the caller's to wait for. It has descriptors of its own then.

        One that has died meanwhile is found out about by that wait.
        """
        self._ordered = True
        written = pickle.dumps(order)
        with suppress(OSError):
            socket.send_fds(self._socket, [len(written).to_bytes(_LENGTH_BYTES, "big")], descriptors)
            self._socket.sendall(written)
        self._socket.close()
        return self._pid


def _wait(
    parent: int,
    orders: socket.socket,
    prepare: Callable[[], object],
    serve: Callable[[OrderT, Sequence[int]], int],
) -> int:
    system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 1
    # A terminal's Ctrl-C goes to the whole foreground; whoever started this ends it then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare()
    with orders:
        length, descriptors, _flags, _address = socket.recv_fds(orders, _LENGTH_BYTES, _MOST_DESCRIPTORS)
        for descriptor in descriptors:
            # What this one starts is to have none of them.
            os.set_inheritable(descriptor, False)
        with orders.makefile("rb") as stream:
            written = stream.read(int.from_bytes(length, "big"))
    if not written:
        return 1
    # From the process that this one was forked from, over a socket that no other has.
    return serve(pickle.loads(written), descriptors)  # noqa: S301
