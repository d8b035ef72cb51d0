"""How many requests each user may send."""

from sandgate.core.clock import Clock
from sandgate.core.errors import TooManyRequests
from sandgate.core.ids import UserId

# Whoever has been quiet for a second starts with a full bucket anyway, and need not be remembered.
_MOST_REMEMBERED = 10_000


class RequestRate:
    """A bucket for each user: a request takes one out, and every second puts ``per_s`` in, which is all it holds."""

    def __init__(self, per_s: int, clock: Clock) -> None:
        self._per_s = float(per_s)
        self._clock = clock
        self._buckets: dict[UserId, tuple[float, float]] = {}

    def take(self, user_id: UserId) -> None:
        """Count a request. Raises ``TooManyRequests``."""
        now = self._clock.monotonic()
        left, at = self._buckets.get(user_id, (self._per_s, now))
        left = min(self._per_s, left + (now - at) * self._per_s)
        if left < 1:
            raise TooManyRequests(
                f"You have sent more than {self._per_s:.0f} requests a second; send fewer at once",
                {"limit_per_s": int(self._per_s)},
                retry_after_s=(1 - left) / self._per_s,
            )
        if len(self._buckets) >= _MOST_REMEMBERED:
            self._forget_full(now)
        self._buckets[user_id] = (left - 1, now)

    def _forget_full(self, now: float) -> None:
        self._buckets = {user_id: bucket for user_id, bucket in self._buckets.items() if now - bucket[1] < 1}
