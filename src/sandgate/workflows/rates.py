"""How often something may be done: a bucket for each key, that fills evenly."""

from collections import OrderedDict
from collections.abc import Hashable

from sandgate.core.clock import Clock

_ROUNDING = 1e-6


class Rates:
    """Lets each key through ``most`` times in ``window_s``, at once or spread; the longest unused are forgotten."""

    def __init__(self, clock: Clock, most: int, window_s: float, *, keys: int = 10_000) -> None:
        self._clock = clock
        self._most = most
        self._per_s = most / window_s
        self._keys = keys
        self._held: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable) -> float:
        """0 when it may be done now, and then it is counted; otherwise the seconds until it may."""
        now = self._clock.monotonic()
        left, at = self._held.pop(key, (float(self._most), now))
        left = min(float(self._most), left + (now - at) * self._per_s)
        allowed = left >= 1 - _ROUNDING
        self._held[key] = (left - 1 if allowed else left, now)
        if len(self._held) > self._keys:
            self._held.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._per_s
