"""Wakes runs when their time has come."""

import asyncio
from collections.abc import Callable

from sandgate.core.clock import Clock
from sandgate.workflows.live import LiveRun

# The wall clock may be set while a timer runs: it is looked at again after so long at most.
_LONGEST_WAIT_S = 60.0


class RunTimers:
    """``ring(live)`` is called when the time of a run's ``wake_at`` has come, if the run is still worked on."""

    def __init__(self, clock: Clock, ring: Callable[[LiveRun], None]) -> None:
        self._clock = clock
        self._ring = ring

    def set(self, live: LiveRun) -> None:
        """Wait for the time that the run's row names, and for no other."""
        if live.timer is not None:
            live.timer.cancel()
            live.timer = None
        if live.run.wake_at is not None and not live.closed:
            delay_s = max(0.0, (live.run.wake_at - self._clock.now()).total_seconds())
            live.timer = asyncio.get_running_loop().call_later(min(delay_s, _LONGEST_WAIT_S), self._look, live)

    def _look(self, live: LiveRun) -> None:
        live.timer = None
        if live.run.wake_at is not None and live.run.wake_at <= self._clock.now():
            self._ring(live)
        else:
            self.set(live)
