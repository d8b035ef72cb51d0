"""How many requests each user may send, and have served at once."""

from collections import Counter

from sandgate.core.clock import Clock
from sandgate.core.errors import TooManyRequests, TooManyRequestsAtOnce
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


class RequestsAtOnce:
    """Counts the requests of each user that are being served."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[UserId] = Counter()

    def take(self, user_id: UserId) -> None:
        """Count one more. Raises ``TooManyRequestsAtOnce``, with nothing counted."""
        held = self._held[user_id]
        if held >= self._most:
            raise TooManyRequestsAtOnce(
                f"{self._most} requests of yours are being served, the most that may be; wait for their answers",
                {"limit": self._most},
            )
        self._held[user_id] = held + 1

    def give_back(self, user_id: UserId) -> None:
        """Count one less."""
        self._held[user_id] -= 1
        if not self._held[user_id]:
            del self._held[user_id]
