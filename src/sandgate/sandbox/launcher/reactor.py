"""One thread that waits on descriptors and on time."""

import heapq
import itertools
import selectors
import time
from collections.abc import Callable

Callback = Callable[[], None]


class Reactor:
    """Calls back when a descriptor can be read or a moment has come."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()
        self._stopped = False

    def watch(self, descriptor: int, callback: Callback) -> None:
        """Call back whenever the descriptor can be read."""
        self._selector.register(descriptor, selectors.EVENT_READ, callback)

    def forget(self, descriptor: int) -> None:
        """Watch it no longer; one that is not watched is no error."""
        try:
            self._selector.unregister(descriptor)
        except (KeyError, ValueError):
            return

    def call_at(self, moment: float, callback: Callback) -> None:
        """Call back once, at a moment of ``time.monotonic``; a callback sees for itself whether it still applies."""
        heapq.heappush(self._timers, (moment, next(self._order), callback))

    def call_later(self, seconds: float, callback: Callback) -> None:
        """Call back once, so many seconds from now."""
        self.call_at(time.monotonic() + seconds, callback)

    def stop(self) -> None:
        """Leave :meth:`run` after the callbacks of this round."""
        self._stopped = True

    def run(self) -> None:
        """Wait and call back until stopped."""
        while not self._stopped:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, _events in self._selector.select(timeout):
                # A callback of this round may have made a later one pointless, and given its number to another.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
