"""Timers by name, which stand still with their sandbox."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

_Act = Callable[[], Any]


class Timers:
    """At most one of each name at a time."""

    def __init__(self) -> None:
        # When each is due, or while time stands still how long it has left.
        self._armed: dict[str, tuple[float, _Act, asyncio.TimerHandle | None]] = {}
        self._stands_still = False

    def set(self, name: str, seconds: float, act: _Act) -> None:
        """Act then, unless it is said that this is not needed any more."""
        self.cancel(name)
        self._arm(name, seconds, act)

    def _arm(self, name: str, seconds: float, act: _Act) -> None:
        if self._stands_still:
            self._armed[name] = seconds, act, None
            return
        timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._act, name, act)
        self._armed[name] = time.monotonic() + seconds, act, timer

    def _act(self, name: str, act: _Act) -> None:
        self._armed.pop(name, None)
        act()

    def cancel(self, name: str) -> None:
        """It need not be acted."""
        _at, _act, timer = self._armed.pop(name, (0.0, None, None))
        if timer is not None:
            timer.cancel()

    def stand_still(self) -> None:
        """Nothing is acted until :meth:`go_on`."""
        if not self._stands_still:
            self._stands_still = True
            now = time.monotonic()
            for name, (at, act, timer) in self._armed.items():
                if timer is not None:
                    timer.cancel()
                self._armed[name] = at - now, act, None

    def go_on(self) -> None:
        """Time goes on where it stood."""
        if self._stands_still:
            self._stands_still = False
            for name, (left_s, act, _timer) in list(self._armed.items()):
                self._arm(name, left_s, act)

    def close(self) -> None:
        """Nothing need be acted any more."""
        for name in list(self._armed):
            self.cancel(name)
