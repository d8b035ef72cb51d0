"""Volumes of a container: attached where its file server sees them, then shown to every slot by its process 1.

A container is given none when it is started, so that one that was made beforehand is as good as any other. What process
1 says is hostile, and decides about its own sandbox only.
"""

import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from sandgate.sandbox.launcher.attaching import Namespaces, Wanted, attach
from sandgate.sandbox.launcher.gvisor.bundle import VOLUMES, VOLUMES_TO_READ
from sandgate.sandbox.launcher.reactor import Reactor, Timer
from sandgate.sandbox.launcher.volume_verbs import MOST_MOUNTED
from sandgate_agent import wire

_LARGEST_ERROR = 4095
Then = Callable[[str | None], None]


class Showing:
    """``send(message)`` tells process 1; it and ``open_namespaces()``, those of the file server, raise ``OSError``."""

    def __init__(
        self, reactor: Reactor, open_namespaces: Callable[[], Namespaces], send: Callable[[bytes], None]
    ) -> None:
        self._reactor = reactor
        self._open_namespaces = open_namespaces
        self._send = send
        self._attached = 0
        # What process 1 has been told of and not answered.
        self._due: deque[str] = deque()
        self._then: Then | None = None
        self._timer: Timer | None = None

    def begin(self, wanted: Sequence[Wanted], limit_s: float, then: Then) -> None:
        """See :func:`attaching.attach`."""
        first = self._attached
        if self._then is not None or first + len(wanted) > MOST_MOUNTED:
            raise OSError(errno.EBUSY, "it has as many volumes as it can have, or is about to")
        numbered = [
            replace(each, path=f"/{number}", place=VOLUMES_TO_READ if each.read_only else VOLUMES)
            for number, each in enumerate(wanted, first)
        ]

        def attached(reason: str | None) -> None:
            if reason is not None:
                self._tell(reason)
            elif self._then is not None:
                self._show(first, wanted)

        namespaces = self._open_namespaces()
        try:
            attach(self._reactor, namespaces, numbered, limit_s, attached)
        finally:
            namespaces.close()
        self._attached += len(wanted)
        self._then = then
        self._timer = self._reactor.call_later(limit_s, lambda: self._tell(f"it took more than {limit_s:g} seconds"))

    def _show(self, first: int, wanted: Sequence[Wanted]) -> None:
        try:
            for number, each in enumerate(wanted, first):
                self._send(wire.pack_numbered(wire.SHOW, 2 * number + each.read_only) + os.fsencode(each.path))
                self._due.append(each.path)
        except OSError as error:
            self._tell(f"it cannot be told of its volumes: {error.strerror}")

    def on_told(self, number: int) -> bool:
        """Process 1 has answered; False when nobody had asked."""
        if not self._due or number > _LARGEST_ERROR:
            return False
        path = self._due.popleft()
        if number:
            self._tell(f"nothing can be mounted at {path}: {os.strerror(number)}")
        elif not self._due:
            self._tell(None)
        return True

    def _tell(self, reason: str | None) -> None:
        if self._timer is not None:
            self._reactor.cancel(self._timer)
            self._timer = None
        then, self._then = self._then, None
        if then is not None:
            then(reason)

    def close(self) -> None:
        """The sandbox has ended."""
        self._tell("it has ended")
