"""What a container says that it holds, because nothing outside can count it: its processes and its files.

Process 1 of the container tells what gVisor's kernel counts. Code cannot touch it, but packages of its template can
make it say anything: so nothing is decided by these figures, none is beyond what was granted, and nobody waits for them
long.
"""

from collections.abc import Callable, Mapping

from sandgate.core.limits import Limits
from sandgate.sandbox.launcher.reactor import Reactor, Timer
from sandgate_agent import wire

_PATIENCE_S = 1.0
Then = Callable[[Mapping[str, int | None]], None]


class Insight:
    """``look()`` asks process 1, which may raise ``OSError``: one question at a time, answered to all who ask."""

    def __init__(self, reactor: Reactor, limits: Limits, look: Callable[[], None]) -> None:
        self.limits = limits
        self._reactor = reactor
        self._look = look
        self._waiting: list[Then] = []
        self._is_asked = False
        self._timer: Timer | None = None
        self._most_processes: int | None = None
        self._most_disk_bytes: int | None = None

    def most(self) -> Mapping[str, int | None]:
        """What is known without asking: the most that was seen."""
        return {"peak_processes": self._most_processes, "peak_disk_bytes": self._most_disk_bytes}

    def ask(self, then: Then) -> None:
        """``then`` is given the figures, or what is known without any when they do not come in time."""
        self._waiting.append(then)
        if self._timer is None:
            self._timer = self._reactor.call_later(_PATIENCE_S, self._give_up)
        if self._is_asked:
            return
        try:
            self._look()
        except OSError:
            # It has ended, or has not read what it was told before.
            self._give_up()
        else:
            self._is_asked = True

    def on_told(self, held: wire.Held) -> bool:
        """Process 1 has answered; False when nobody had asked."""
        if not self._is_asked:
            return False
        self._is_asked = False
        processes = min(held.processes, self.limits.processes)
        disk_bytes = min(held.disk_bytes, self.limits.disk_bytes)
        inodes = None if held.inodes is None else min(held.inodes, self.limits.inodes)
        self._most_processes = max(self._most_processes or 0, processes)
        self._most_disk_bytes = max(self._most_disk_bytes or 0, disk_bytes)
        self._tell({"processes": processes, "disk_bytes": disk_bytes, "inodes": inodes, **self.most()})
        return True

    def _give_up(self) -> None:
        self._tell(self.most())

    def _tell(self, found: Mapping[str, int | None]) -> None:
        if self._timer is not None:
            self._reactor.cancel(self._timer)
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then(found)

    def close(self) -> None:
        """The sandbox has ended."""
        self._give_up()
