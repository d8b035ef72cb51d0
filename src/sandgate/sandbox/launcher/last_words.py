"""What a gateway said that the launcher has not heard yet, when the connection ends or another gateway comes."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress

from sandgate.sandbox import descriptors
from sandgate.sandbox.launcher import protocol
from sandgate.sandbox.launcher.fields import ProtocolError
from sandgate.sandbox.launcher.kept import MOST_ENDS

# More than a socket holds.
_MOST = 4096


def has_spoken(connection: socket.socket) -> bool:
    """Whether there is a first word; some connect to see whether anybody listens, and go."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def last_words(connection: socket.socket) -> Iterator[tuple[int, protocol.Request, list[int]]]:
    """What it wanted kept, or let go of, with descriptors that are the caller's then. The rest has nobody to answer to.

    Executions that it had begun would be lost to the next gateway otherwise.
    """
    for _each in range(_MOST):
        try:
            data, received = descriptors.receive(connection, MOST_ENDS + 1)
        except ConnectionResetError:
            # It went without having read everything. That is said once, before what it had sent.
            continue
        except OSError:
            return
        if not data:
            return
        with suppress(ProtocolError):
            number, request = protocol.parse_request(data)
            if isinstance(request, protocol.Keep | protocol.LetGo):
                yield number, request, received
                continue
        for surplus in received:
            os.close(surplus)
