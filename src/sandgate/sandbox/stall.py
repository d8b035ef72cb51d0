"""Nobody may wait for ever on a sandbox that is alive and does nothing."""

import time
from collections.abc import Callable

from sandgate.sandbox.patient_timer import PatientTimer


class StallWatch:
    """``is_waiting()`` tells whether somebody waits, ``is_busy()`` whether something runs that is waited for."""

    # With nothing running, a sandbox that offers no child for so long will not come back.
    limit_s = 30.0

    def __init__(
        self, is_waiting: Callable[[], bool], is_busy: Callable[[], bool], on_stall: Callable[[], None]
    ) -> None:
        self._is_waiting = is_waiting
        self._is_busy = is_busy
        self._on_stall = on_stall
        self._timer: PatientTimer | None = None
        self._progressed_at = 0.0

    def begin(self) -> None:
        """Somebody waits from now on."""
        if self._timer is None:
            self.note_progress()
            self._timer = PatientTimer(self.limit_s, self._check)

    def note_progress(self) -> None:
        """Something has happened that was waited for."""
        self._progressed_at = time.monotonic()

    def _check(self) -> None:
        self._timer = None
        if not self._is_waiting():
            return
        if not self._is_busy() and time.monotonic() - self._progressed_at >= self.limit_s:
            self._on_stall()
        else:
            self.begin()

    def close(self) -> None:
        """It does not matter any more."""
        if self._timer is not None:
            self._timer.cancel()
