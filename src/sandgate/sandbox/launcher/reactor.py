"""One thread that waits on descriptors and on time.

What goes wrong in a callback is the affair of whom it was for: a sandbox, a zygote, a gateway. Nobody else's.
"""

import heapq
import itertools
import selectors
import time
import traceback
from collections.abc import Callable

from sandgate.sandbox.launcher.allowance import Allowance
from sandgate.sandbox.launcher.log import log

Callback = Callable[[], None]
Blame = Callable[[str], None]
# So many cancelled timers may lie about before they are cleared away.
_MOST_CANCELLED = 256
# The kernel waits 2^31 milliseconds at most, which is less than a month. Source: epoll_wait(2).
_LONGEST_WAIT_S = 86_400.0


class Timer:
    """A callback that is due at a moment of ``time.monotonic``, unless it is cancelled before."""

    __slots__ = ("_order", "blame", "callback", "moment")

    def __init__(self, moment: float, order: int, callback: Callback, blame: Blame | None = None) -> None:
        self.moment = moment
        self.callback: Callback | None = callback
        self.blame = blame
        self._order = order

    def __lt__(self, other: "Timer") -> bool:
        return (self.moment, self._order) < (other.moment, other._order)


class Reactor:
    """Calls back when a descriptor can be read or a moment has come.

    A callback that fails is logged, and its descriptor is watched no longer; then ``blame(reason)``, where there is
    one, ends what the callback was for.
    """

    def __init__(self) -> None:
        # Of everybody who waits here.
        self.allowance = Allowance()
        # Processes that were started for a while, and are buried by whoever has started them.
        self.children: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._order = itertools.count()
        self._cancelled = 0
        self._stopped = False

    def watch(self, descriptor: int, callback: Callback, blame: Blame | None = None) -> None:
        """Call back whenever the descriptor can be read."""
        self._selector.register(descriptor, selectors.EVENT_READ, (callback, blame))

    def forget(self, descriptor: int) -> None:
        """Watch it no longer; one that is not watched is no error."""
        try:
            self._selector.unregister(descriptor)
        except (KeyError, ValueError):
            return

    def call_at(self, moment: float, callback: Callback, blame: Blame | None = None) -> Timer:
        """Call back once, at a moment of ``time.monotonic``."""
        timer = Timer(moment, next(self._order), callback, blame)
        heapq.heappush(self._timers, timer)
        return timer

    def call_later(self, seconds: float, callback: Callback, blame: Blame | None = None) -> Timer:
        """Call back once, so many seconds from now."""
        return self.call_at(time.monotonic() + seconds, callback, blame)

    def cancel(self, timer: Timer) -> None:
        """Do not call back, and let go of what the callback holds; one that has been called is no error."""
        if timer.callback is None:
            return
        timer.callback = timer.blame = None
        self._cancelled += 1
        if self._cancelled > max(_MOST_CANCELLED, len(self._timers) // 2):
            self._timers = [waiting for waiting in self._timers if waiting.callback is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    @property
    def timer_count(self) -> int:
        """How many timers are kept, cancelled ones that have not been cleared away among them."""
        return len(self._timers)

    def stop(self) -> None:
        """Leave :meth:`run` after the callbacks of this round."""
        self._stopped = True

    def run(self) -> None:
        """Wait and call back until stopped."""
        while not self._stopped:
            for key, _events in self._selector.select(self._wait_s()):
                # A callback of this round may have made a later one pointless, and given its number to another.
                if self._is_watched(key):
                    self._look(key)
            while self._timers and self._timers[0].moment <= time.monotonic():
                self._call(heapq.heappop(self._timers))

    def _wait_s(self) -> float | None:
        """Until the next timer is due, or a part of that."""
        if not self._timers:
            return None
        return min(max(0.0, self._timers[0].moment - time.monotonic()), _LONGEST_WAIT_S)

    def _is_watched(self, key: selectors.SelectorKey) -> bool:
        return self._selector.get_map().get(key.fd) is key

    def _look(self, key: selectors.SelectorKey) -> None:
        callback, blame = key.data
        failure = _call(callback)
        if failure is None:
            return
        if self._is_watched(key):
            # It would fail again and again.
            self.forget(key.fd)
        _tell(blame, failure)

    def _call(self, timer: Timer) -> None:
        callback, blame = timer.callback, timer.blame
        timer.callback = timer.blame = None
        if callback is None:
            self._cancelled -= 1
            return
        failure = _call(callback)
        if failure is not None:
            _tell(blame, failure)


def _call(callback: Callback) -> str | None:
    """Call back; how that failed, if it did."""
    try:
        callback()
    except Exception as error:
        log(f"a callback failed: {traceback.format_exc()}")
        return f"the launcher failed at it: {error!r}"
    return None


def _tell(blame: Blame | None, failure: str) -> None:
    if blame is not None:
        _call(lambda: blame(failure))
