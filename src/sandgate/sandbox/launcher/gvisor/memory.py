"""Keeps a container within its memory by ending the greediest process in it, as the kernel does in other classes.

The host's kernel charges gVisor's for all that runs in it, and could only kill all of it. So there is some room between
what a sandbox may use and where the host's kernel acts, and whoever gets that far is ended from inside meanwhile.
"""

import os
import time
from collections.abc import Callable

from sandgate.sandbox.launcher.cgroup import Group
from sandgate.sandbox.launcher.reactor import Blame, Reactor, Timer
from sandgate_agent import wire

# While too much is used. It is given back some milliseconds after the end of who had it.
_LOOK_AGAIN_S = 0.01
# Where nobody tells that too much is used.
_LOOK_S = 0.05
_SETTLE_S = 0.15
# How long process 1 may take to find the greediest, which has a processor to itself meanwhile.
_PATIENCE_S = 0.25
# By so much use has to grow before anybody else is ended for it, and after everybody was.
_GROWTH_BYTES = 8 << 20
_LATER_GROWTH_BYTES = 64 << 20
# So far below the limit nobody has to care about what was left.
_CALM_BYTES = 32 << 20
_MOST_ORDERS = 3


class MemoryGuard:
    """``end_one()`` asks process 1 to end the greediest, which :meth:`on_freed` answers; ``end_all()`` ends what runs.

    All end when nobody is found to be greedy, or ending some does not help: memory that gVisor holds for files, sockets
    and pipes is nobody's. It is slow to give back what it had for them, so that what stays in use after that is left
    alone until it grows. ``blame(reason)`` ends the sandbox when it cannot be watched.
    """

    def __init__(
        self,
        reactor: Reactor,
        group: Group,
        limit_bytes: int,
        slack_bytes: int,
        end_one: Callable[[], None],
        end_all: Callable[[], None],
        blame: Blame,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._group = group
        self._limit_bytes = limit_bytes
        # From here on there is no time to look for one.
        self._urgent_bytes = limit_bytes + slack_bytes // 2
        self._end_one = end_one
        self._end_all = end_all
        self._blame = blame
        self._clock = clock
        self._event: int | None = None
        self._timer: Timer | None = None
        # How many have been ended.
        self.kills = 0
        self._is_beyond = False
        self._calm_down()

    def _calm_down(self) -> None:
        self._orders = 0
        self._ordered_at = 0.0
        self._awaits = False
        self._gives_back = False
        self._ended_all = False
        self._floor_bytes = 0

    def start(self) -> None:
        """Watch from now on."""
        self._event = self._group.watch_memory(self._limit_bytes)
        if self._event is None:
            self._look_later(_LOOK_S)
        else:
            self._reactor.watch(self._event, self._on_event, self._blame)

    def stop(self) -> None:
        """Watch no more."""
        if self._event is not None:
            self._reactor.forget(self._event)
            os.close(self._event)
            self._event = None
        if self._timer is not None:
            self._reactor.cancel(self._timer)
            self._timer = None

    def _on_event(self) -> None:
        assert self._event is not None  # noqa: S101 - it is what has happened
        os.read(self._event, 4096)
        self._look()

    def _look_later(self, seconds: float) -> None:
        if self._timer is not None:
            self._reactor.cancel(self._timer)
        self._timer = self._reactor.call_later(seconds, self._look, self._blame)

    def _measure(self) -> int:
        """What is used, but for what the kernel takes back if it must, which files on volumes may have much of."""
        used_bytes = self._group.usage().memory_bytes
        # The limit has been crossed, and nobody tells when what counts crosses it.
        self._is_beyond = used_bytes >= self._limit_bytes
        return used_bytes - self._group.count_file_cache() if self._is_beyond else used_bytes

    def _look(self) -> None:
        used_bytes = self._measure()
        self._floor_bytes = min(self._floor_bytes or used_bytes, used_bytes)
        if used_bytes >= self._limit_bytes:
            self._act(used_bytes)
        if used_bytes < self._limit_bytes - (_CALM_BYTES if self._ended_all else 0):
            self._calm_down()
            if self._event is None or self._is_beyond:
                self._look_later(_LOOK_S)
        else:
            self._look_later(_LOOK_S if self._ended_all else _LOOK_AGAIN_S)

    def _act(self, used_bytes: int) -> None:
        """Too much is used: decide what is to be done now, if anything."""
        waited_s = self._clock() - self._ordered_at
        grows = used_bytes >= self._floor_bytes + (_LATER_GROWTH_BYTES if self._ended_all else _GROWTH_BYTES)
        if self._ended_all and not grows:
            return
        if self._ended_all:
            self._calm_down()
        if used_bytes >= self._urgent_bytes or (self._awaits and waited_s >= _PATIENCE_S):
            self._give_up(used_bytes)
        elif not self._awaits and (not self._orders or (grows and not self._gives_back) or waited_s >= _SETTLE_S):
            self._order(used_bytes)

    def _order(self, used_bytes: int) -> None:
        if self._orders >= _MOST_ORDERS:
            self._give_up(used_bytes)
            return
        self._orders += 1
        self._ordered_at = self._clock()
        self._awaits = True
        self._floor_bytes = used_bytes
        self._end_one()

    def _give_up(self, used_bytes: int) -> None:
        self._awaits = False
        self._ended_all = True
        self._floor_bytes = used_bytes
        self._end_all()

    def on_freed(self, what: int) -> None:
        """Process 1 has answered; see :mod:`wire`."""
        self.kills += what == wire.OF_ONE
        if not self._awaits:
            return
        self._awaits = False
        # Who grows on meanwhile has done nothing wrong.
        self._gives_back = what == wire.OF_NOBODY
        self._ordered_at = self._clock()
        used_bytes = self._measure()
        self._floor_bytes = used_bytes
        if what not in (wire.OF_ONE, wire.OF_NOBODY) and used_bytes >= self._limit_bytes:
            self._give_up(used_bytes)
