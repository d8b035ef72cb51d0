"""The time of an execution, which stands still with its sandbox."""

import time

from sandgate.sandbox.patient_timer import PatientTimer
from sandgate.sandbox.timers import Timers


class Timed:
    """How long an execution has run, and the end of its time limit. ``_over`` is called when that is reached."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        # Zero until it begins, and what the clock showed since.
        self._started = 0.0
        self._stood_still_at: float | None = None
        self._limit: PatientTimer | None = None

    @property
    def age_s(self) -> float:
        """How long it has run."""
        now = time.perf_counter() if self._stood_still_at is None else self._stood_still_at
        return now - self._started

    def stand_still(self) -> None:
        """Its time does not go on until :meth:`go_on`, and its limit is not reached."""
        if self._stood_still_at is None and self._started > 0:
            self._stood_still_at = time.perf_counter()
            self._forget_limit()

    def go_on(self) -> None:
        """Its time goes on. Of one that has not stood still, or has ended, nothing changes."""
        if self._stood_still_at is not None:
            self._started += time.perf_counter() - self._stood_still_at
            self._stood_still_at = None
            if not self._has_ended():
                self._set_limit()

    def _begin_time(self, age_s: float) -> None:
        """It began so many seconds ago."""
        self._started = time.perf_counter() - age_s
        self._set_limit()

    def _set_limit(self) -> None:
        self._limit = PatientTimer(max(0.0, self._timeout_s - self.age_s), self._over)

    def _forget_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _over(self) -> None:
        raise NotImplementedError

    def _has_ended(self) -> bool:
        raise NotImplementedError


class StandsStill:
    """What has timers of its own, and something that runs in it."""

    _running: Timed | None

    def __init__(self) -> None:
        self._timers = Timers()

    def stand_still(self) -> None:
        """Its time does not go on until :meth:`go_on`."""
        self._timers.stand_still()
        if self._running is not None:
            self._running.stand_still()

    def go_on(self) -> None:
        """Its time goes on."""
        self._timers.go_on()
        if self._running is not None:
            self._running.go_on()
