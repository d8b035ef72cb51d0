"""One timer for many deadlines."""

import asyncio
import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

from sandgate.core.clock import Clock

KeyT = TypeVar("KeyT")

# Timers far in the future are armed again on the way, so that no event loop's own limit is met.
_LONGEST_SLEEP_S = 3600.0


class Deadlines(Generic[KeyT]):
    """Calls ``due(key)`` once for each key whose deadline, in seconds of the clock's ``monotonic``, has passed."""

    def __init__(self, clock: Clock, due: Callable[[KeyT], None]) -> None:
        self._clock = clock
        self._due = due
        self._at: dict[KeyT, float] = {}
        # Entries whose deadline is no longer the one in ``_at`` are leftovers; they are skipped when they come up.
        self._heap: list[tuple[float, int, KeyT]] = []
        self._counter = 0
        self._timer: asyncio.TimerHandle | None = None

    def set(self, key: KeyT, at: float) -> None:
        """Put the deadline of a key, in place of any earlier one."""
        self._at[key] = at
        self._counter += 1
        heapq.heappush(self._heap, (at, self._counter, key))
        if self._heap[0][2] == key:
            self._arm()
        elif len(self._heap) > 64 and len(self._heap) > 4 * len(self._at):
            self._compact()

    def discard(self, key: KeyT) -> None:
        """Forget a key."""
        self._at.pop(key, None)

    def check(self) -> None:
        """Call ``due`` for what has passed. The timer does so by itself."""
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._at.get(key) == at:
                del self._at[key]
                self._due(key)
        self._arm()

    def close(self) -> None:
        """Forget everything."""
        self._at.clear()
        self._heap.clear()
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            delay = min(self._heap[0][0] - self._clock.monotonic(), _LONGEST_SLEEP_S)
            self._timer = asyncio.get_running_loop().call_later(max(delay, 0.0), self.check)

    def _compact(self) -> None:
        self._heap = [entry for entry in self._heap if self._at.get(entry[2]) == entry[0]]
        heapq.heapify(self._heap)
        self._arm()
