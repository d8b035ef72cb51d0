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


class _Round:
    """What was asked for together. Nothing that comes late concerns what is asked for after it."""

    def __init__(self, wanted: Sequence[Wanted], then: Then) -> None:
        self.wanted = wanted
        self.then = then
        self.timer: Timer | None = None


class Showing:
    """``send(message)`` tells process 1; it and ``open_namespaces()``, those of the file server, raise ``OSError``."""

    def __init__(
        self, reactor: Reactor, open_namespaces: Callable[[], Namespaces], send: Callable[[bytes], None]
    ) -> None:
        self._reactor = reactor
        self._open_namespaces = open_namespaces
        self._send = send
        # Places that something may be attached at: those of what failed on the way are not used again.
        self._taken = 0
        # What process 1 has been told of and not answered.
        self._due: deque[tuple[_Round, str]] = deque()
        self._round: _Round | None = None

    def begin(self, wanted: Sequence[Wanted], limit_s: float, then: Then) -> None:
        """See :func:`attaching.attach`."""
        first = self._taken
        if self._round is not None or first + len(wanted) > MOST_MOUNTED:
            raise OSError(errno.EBUSY, "it has as many volumes as it can have, or is about to")
        numbered = [
            replace(each, path=f"/{number}", place=VOLUMES_TO_READ if each.read_only else VOLUMES)
            for number, each in enumerate(wanted, first)
        ]
        begun = _Round(wanted, then)

        def attached(reason: str | None) -> None:
            if reason is not None:
                self._tell(begun, reason)
            elif self._round is begun:
                self._show(first, begun)

        namespaces = self._open_namespaces()
        try:
            attach(self._reactor, namespaces, numbered, limit_s, attached)
        finally:
            namespaces.close()
        self._taken += len(wanted)
        self._round = begun
        late = f"it took more than {limit_s:g} seconds"
        begun.timer = self._reactor.call_later(limit_s, lambda: self._tell(begun, late))

    def _show(self, first: int, begun: _Round) -> None:
        try:
            for number, each in enumerate(begun.wanted, first):
                self._send(wire.pack_numbered(wire.SHOW, 2 * number + each.read_only) + os.fsencode(each.path))
                self._due.append((begun, each.path))
        except OSError as error:
            self._tell(begun, f"it cannot be told of its volumes: {error.strerror}")

    def on_told(self, number: int) -> bool:
        """Process 1 has answered; False when nobody had asked."""
        if not self._due or number > _LARGEST_ERROR:
            return False
        told, path = self._due.popleft()
        if number:
            self._tell(told, f"nothing can be mounted at {path}: {os.strerror(number)}")
        elif not any(each is told for each, _path in self._due):
            self._tell(told, None)
        return True

    def _tell(self, told: _Round, reason: str | None) -> None:
        """How it went, unless that has been said."""
        if self._round is not told:
            return
        self._round = None
        if told.timer is not None:
            self._reactor.cancel(told.timer)
        told.then(reason)

    def close(self) -> None:
        """The sandbox has ended."""
        if self._round is not None:
            self._tell(self._round, "it has ended")
