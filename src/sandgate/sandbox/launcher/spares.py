"""Sandboxes that are made before anybody asks for them.

Whoever gets one does not wait until it is made; and where the launcher has to put its first process into a control
group, the kernel takes 10 to 20 ms for that after a pause. Spares are made one at a time, while nobody waits for a
sandbox that is being made, and as long as there are some only when none has been asked for lately, so that they get in
nobody's way: whoever asks for many in a row gets those that are there, and what is missing is made when that is over.
"""

import operator
import time
from collections.abc import Callable

from sandgate.core.limits import Limits
from sandgate.sandbox.launcher.life import Life
from sandgate.sandbox.launcher.reactor import Reactor

_PAUSE_S = 0.001
_BUSY_PAUSE_S = 0.005
_ASKED_PAUSE_S = 0.02
_AFTER_FAILURE_S = 5.0
# Those that most uses need are made at once, more of them with pauses, and all at once after a burst.
_SOON, _MORE_PAUSE_S = 16, 0.03
# So few of the least are left when spares are made though some have just been asked for.
_LOW_PART = 8


class Demand:
    """How many spares are wanted: as many as were asked for within a second, and after a quiet minute half as many."""

    WINDOW_S = 1.0
    QUIET_S = 60.0

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self._most = max(least, most)
        self._window_from = 0.0
        self._asked = 0
        self._raised_at = 0.0
        self.wanted = least

    @property
    def is_raised(self) -> bool:
        """Whether more are wanted than the least."""
        return self.wanted > self.least

    def ask(self, now: float) -> None:
        """One was asked for."""
        if now - self._window_from > self.WINDOW_S:
            self._window_from, self._asked = now, 0
        self._asked += 1
        if self._asked >= self.wanted:
            self.wanted = max(self.wanted, min(self._asked, self._most))
            self._raised_at = now

    def settle(self, now: float) -> float | None:
        """Want fewer when it has been quiet; the seconds until it is worth while to look again, None for never."""
        if now - self._raised_at >= self.QUIET_S:
            self.wanted = max(self.least, self.wanted // 2)
            self._raised_at = now
        return None if self.wanted == self.least else self._raised_at + self.QUIET_S - now

    def stop(self) -> None:
        """Want none from now on."""
        self.least = self._most = self.wanted = 0


def _becomes(spare: Life, limits: Limits) -> bool:
    """Give a spare its limits; one that cannot have them is ended."""
    try:
        spare.become(limits)
    except OSError as error:
        spare.kill(f"it is a spare that could not be given its limits: {error.strerror}")
        return False
    return True


class Spares:
    """The spares of one template, all made with its own limits; one is given what is asked for when it is taken.

    So nobody who asks for other limits has the spares of others thrown away. ``make()`` starts one and answers it, or
    None when none can be made now. ``is_busy()`` tells whether somebody waits for a sandbox; ``fits(made, asked)``
    whether one that was made with some limits can be given others.
    """

    def __init__(
        self,
        demand: Demand,
        reactor: Reactor,
        limits: Limits,
        make: Callable[[], Life | None],
        is_busy: Callable[[], bool],
        fits: Callable[[Limits, Limits], bool] = operator.eq,
    ) -> None:
        self._demand = demand
        self._reactor = reactor
        self._make = make
        self._is_busy = is_busy
        self._fits = fits
        self._limits = limits
        self._ready: list[Life] = []
        self._making: Life | None = None
        self._scheduled = False
        # Whether one was asked for since this was last looked at.
        self._asked = False
        self._settling = False

    def take(self, limits: Limits) -> Life | None:
        """A ready one, with these limits from now on, if there is one that can have them."""
        if not self._fits(self._limits, limits):
            return None
        self._demand.ask(time.monotonic())
        self._asked = True
        self._schedule(_PAUSE_S)
        self._settle()
        # One that is dying is there until its last trace is gone.
        spare = next((each for each in reversed(self._ready) if not each.ending), None)
        if spare is None:
            return None
        self._ready.remove(spare)
        # No other one is tried: where none can have these limits, they would all be gone.
        return spare if _becomes(spare, limits) else None

    def _drop(self, count: int, reason: str) -> None:
        for spare in self._ready[:count]:
            spare.kill(reason)
        del self._ready[:count]

    def _settle(self) -> None:
        if not self._settling:
            self._settling = True
            self._reactor.call_later(Demand.QUIET_S, self._look_at_demand)

    def _look_at_demand(self) -> None:
        self._settling = False
        again_s = self._demand.settle(time.monotonic())
        self._drop(max(0, len(self._ready) - self._demand.wanted), "it is a spare that has not been needed for a while")
        if again_s is not None:
            self._settling = True
            self._reactor.call_later(again_s, self._look_at_demand)

    def _schedule(self, seconds: float) -> None:
        if not self._scheduled and self._demand.wanted:
            self._scheduled = True
            self._reactor.call_later(seconds, self._refill)

    def _refill(self) -> None:
        self._scheduled = False
        if self._making is not None or len(self._ready) >= self._demand.wanted:
            return
        asked, self._asked = self._asked, False
        if self._is_busy():
            self._schedule(_BUSY_PAUSE_S)
            return
        if asked and _LOW_PART * len(self._ready) > self._demand.least:
            # Whoever has just got one is about to use it.
            self._schedule(_ASKED_PAUSE_S)
            return
        self._making = self._make()
        if self._making is None:
            self._schedule(_AFTER_FAILURE_S)

    def on_ready(self, spare: Life) -> None:
        """One is built."""
        self._making = None
        self._ready.append(spare)
        in_no_hurry = len(self._ready) >= _SOON and not self._demand.is_raised
        self._schedule(_MORE_PAUSE_S if in_no_hurry else _PAUSE_S)

    def on_gone(self, spare: Life) -> None:
        """One has ended, by itself or because it was not wanted."""
        if spare in self._ready:
            self._ready.remove(spare)
        if spare is self._making:
            self._making = None
            self._schedule(_AFTER_FAILURE_S)

    def retire(self) -> None:
        """Make no more, and end those that there are."""
        self._demand.stop()
        self._drop(len(self._ready), "it is a spare of a template that is not used any more")

    def stop(self) -> None:
        """Make no more."""
        self._demand.stop()
