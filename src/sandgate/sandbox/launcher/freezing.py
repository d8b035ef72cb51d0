"""A sandbox that stands still, as the launcher sees it: the order to its processes, and the wait until all obey."""

import errno
import time
from collections.abc import Callable

from sandgate.sandbox.launcher.cgroup import Group
from sandgate.sandbox.launcher.reactor import Reactor, Timer

_FIRST_LOOK_S = 0.0005
_LONGEST_PAUSE_S = 0.02
# What has not come back from the kernel by then stands still before it runs any code of its own again.
_PATIENCE_S = 2.0

OnFrozen = Callable[[str | None], None]
"""Is given the reason why it does not stand still, if it does not."""


class Freezing:
    """Of one sandbox. ``is_on`` from the order on, until it is taken back."""

    def __init__(self, reactor: Reactor, group: Group | None) -> None:
        self._reactor = reactor
        self._frost = None if group is None else group.frost
        self.is_on = False
        self._told: list[OnFrozen] = []
        self._timer: Timer | None = None
        self._since = 0.0
        self._is_partial = False

    def begin(self, told: OnFrozen, but: str | None = None) -> None:
        """``told(None)`` once it stands still, or with the reason why it does not. Again for one that does.

        ``but`` a part of its group, which goes on.
        """
        if self._frost is None:
            told("sandboxes of this class, or on this machine, cannot be paused")
            return
        if but == "" or (but is not None and self.is_on):
            told("it stands still already" if but else "nothing of it is apart")
            return
        if not self.is_on:
            try:
                self._frost.freeze(but)
            except OSError as error:
                told(f"it could not be paused: {error.strerror}")
                return
            self.is_on = True
            self._is_partial = but is not None
            self._since = time.monotonic()
        self._told.append(told)
        self._look(_FIRST_LOOK_S)

    def _look(self, pause_s: float) -> None:
        assert self._frost is not None  # noqa: S101 - it has begun
        self._forget_timer()
        if self._frost.is_settled or time.monotonic() - self._since >= _PATIENCE_S:
            self._tell(None)
            return
        longer_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self._timer = self._reactor.call_later(pause_s, lambda: self._look(longer_s), self._tell)

    def end(self) -> None:
        """Let it go on. Raises ``OSError``."""
        if self.is_on and self._frost is not None:
            self._frost.thaw()
            self.is_on = False
            self._forget_timer()
            self._tell("it was resumed meanwhile")

    @property
    def is_settled(self) -> bool:
        """Whether all of it stands still by now; what sleeps in the kernel may not yet."""
        return self.is_on and self._frost is not None and self._frost.is_settled

    def check(self) -> None:
        """Raises ``OSError`` unless all of it stands still, and has been looked at until it did."""
        if not self.is_on or self._is_partial or self._timer is not None:
            raise OSError(errno.EBUSY, "it does not stand still")

    def forget(self) -> None:
        """Whoever asked is gone."""
        self._told.clear()

    def let_die(self) -> None:
        """It has been killed."""
        self._forget_timer()
        if self._frost is not None and self.is_on:
            self._frost.let_die()
        self._tell("it has ended")

    def _tell(self, reason: str | None) -> None:
        told, self._told = self._told, []
        for each in told:
            each(reason)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._reactor.cancel(self._timer)
            self._timer = None
