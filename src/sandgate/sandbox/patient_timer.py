"""A deadline of somebody else, kept by a process that may stand still itself."""

import asyncio
import time
from collections.abc import Callable

# A loop that is this late was kept from looking, by a stop of the process or by the machine.
_LATE_S = 0.05
# Long enough to read what has come meanwhile.
_HEARING_S = 0.01


class PatientTimer:
    """Calls back once, so many seconds from now.

    An event loop runs its timers before it reads. When it comes back late, it would judge by the clock what has ended
    in time long ago, and tells of it: so it reads first.
    """

    __slots__ = ("_callback", "_due", "_handle")

    def __init__(self, seconds: float, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._due = time.monotonic() + seconds
        self._handle = asyncio.get_running_loop().call_later(seconds, self._look)

    def cancel(self) -> None:
        """Do not call back."""
        self._handle.cancel()

    def _look(self) -> None:
        if time.monotonic() - self._due < _LATE_S:
            self._callback()
        else:
            self._handle = asyncio.get_running_loop().call_later(_HEARING_S, self._callback)
