"""Sandboxes that are made before anybody asks for them.

The first process that is put into a control group after a pause waits for a grace period of the kernel, some 10 to
20 ms; a spare has that behind it. Spares are made one at a time, so that they get in nobody's way.
"""

from collections.abc import Callable

from sandgate.core.limits import Limits
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.sandbox import Sandbox

_PAUSE_S = 0.001
_AFTER_FAILURE_S = 5.0


class Spares:
    """The spares of one template, all with the limits that were asked for last.

    ``make(limits)`` starts one and answers it, or None when none can be made now.
    """

    def __init__(self, wanted: int, reactor: Reactor, make: Callable[[Limits], Sandbox | None]) -> None:
        self._wanted = wanted
        self._reactor = reactor
        self._make = make
        self._limits: Limits | None = None
        self._ready: list[Sandbox] = []
        self._making: Sandbox | None = None
        self._scheduled = False

    def take(self, limits: Limits) -> Sandbox | None:
        """A ready one with these limits, if there is one; from now on spares have these limits."""
        if self._limits != limits:
            self._limits = limits
            for spare in self._ready:
                spare.kill("it is a spare with limits that nobody asks for any more")
            self._ready.clear()
        self._schedule(_PAUSE_S)
        while self._ready:
            spare = self._ready.pop()
            # One that is dying is there until its last trace is gone.
            if not spare.ending:
                return spare
        return None

    def _schedule(self, seconds: float) -> None:
        if not self._scheduled and self._wanted:
            self._scheduled = True
            self._reactor.call_later(seconds, self._refill)

    def _refill(self) -> None:
        self._scheduled = False
        if self._making is not None or self._limits is None or len(self._ready) >= self._wanted:
            return
        self._making = self._make(self._limits)
        if self._making is None:
            self._schedule(_AFTER_FAILURE_S)

    def on_ready(self, spare: Sandbox) -> None:
        """One is built."""
        self._making = None
        if spare.limits == self._limits:
            self._ready.append(spare)
        else:
            spare.kill("it is a spare with limits that nobody asks for any more")
        self._schedule(_PAUSE_S)

    def on_gone(self, spare: Sandbox) -> None:
        """One has ended, by itself or because it was not wanted."""
        if spare in self._ready:
            self._ready.remove(spare)
        if spare is self._making:
            self._making = None
            self._schedule(_AFTER_FAILURE_S)

    def stop(self) -> None:
        """Make no more."""
        self._wanted = 0
