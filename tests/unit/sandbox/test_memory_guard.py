"""Who is ended when a container uses too much memory, and when: a group that says what the test wants, no clock."""

from collections.abc import Callable

import pytest

from sandgate.sandbox.launcher.counting import GroupUsage
from sandgate.sandbox.launcher.gvisor.memory import MemoryGuard
from sandgate.sandbox.launcher.reactor import Blame, Timer
from sandgate_agent.wire import NOTHING, OF_NOBODY, OF_ONE

MIB = 1 << 20
LIMIT, SLACK = 100 * MIB, 200 * MIB


class Machine:
    """A control group, a reactor and a clock; notes what is asked for in ``asked``."""

    def __init__(self) -> None:
        self.used = 0
        self.cached = 0
        self.now = 1.0
        self.asked: list[str] = []
        self.due: Callable[[], None] | None = None
        self.threshold = 0
        self.guard = MemoryGuard(
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            LIMIT,
            SLACK,
            end_one=lambda: self.asked.append("one"),
            end_all=lambda: self.asked.append("all"),
            blame=self.asked.append,
            clock=lambda: self.now,
        )

    def watch_memory(self, threshold_bytes: int) -> None:
        """There is no event: it has to be looked at."""
        self.threshold = threshold_bytes

    def usage(self) -> GroupUsage:
        """What is used now."""
        return GroupUsage(self.used, 0, 0, None, None, 0)

    def count_file_cache(self) -> int:
        """What of it the kernel would take back."""
        return self.cached

    def call_later(self, _seconds: float, callback: Callable[[], None], blame: Blame) -> Timer:
        """Keep the callback for :meth:`look`."""
        self.due = callback
        return Timer(0.0, 0, callback, blame)

    def cancel(self, _timer: Timer) -> None:
        """Forget it."""
        self.due = None

    def look(self, used_mib: int, after_s: float = 0.0) -> list[str]:
        """So much is used when the guard looks again; what it asked for since the last time."""
        self.used, self.now = used_mib * MIB, self.now + after_s
        due, self.due = self.due, None
        assert due is not None
        due()
        asked, self.asked = self.asked, []
        return asked


@pytest.fixture
def machine() -> Machine:
    """One whose guard watches."""
    made = Machine()
    made.guard.start()
    assert made.threshold == LIMIT
    return made


def test_who_stays_within_is_left_alone(machine: Machine) -> None:
    """Up to the last byte."""
    assert machine.look(99) == []
    assert machine.guard.kills == 0


def test_what_the_kernel_takes_back_is_nobodys(machine: Machine) -> None:
    """Files that were read or written end nobody; who takes memory beside them is found all the same."""
    machine.cached = 90 * MIB
    assert machine.look(150) == machine.look(189, 0.05) == []
    assert machine.look(191, 0.05) == ["one"]


def test_the_greediest_is_ended_and_nobody_else(machine: Machine) -> None:
    """While its memory is given back, and afterwards, others go on."""
    assert machine.look(101) == ["one"]
    assert machine.look(104, 0.01) == []
    machine.guard.on_freed(OF_ONE)
    assert machine.guard.kills == 1
    assert machine.look(103, 0.01) == machine.look(60, 0.01) == []
    # Another time.
    assert machine.look(101, 0.01) == ["one"]


def test_the_next_one_is_ended_when_it_grows_on(machine: Machine) -> None:
    """Or when nothing is given back; after some, all."""
    assert machine.look(101) == ["one"]
    machine.guard.on_freed(OF_ONE)
    assert machine.look(110, 0.01) == ["one"]
    machine.guard.on_freed(OF_ONE)
    assert machine.look(110, 0.1) == []
    assert machine.look(110, 0.1) == ["one"]
    machine.guard.on_freed(OF_ONE)
    assert machine.look(120, 0.01) == ["all"]
    assert machine.guard.kills == 3


def test_all_are_ended_when_nobody_is_found(machine: Machine) -> None:
    """At once, and what gVisor keeps after that troubles nobody until it grows by a lot."""
    assert machine.look(101) == ["one"]
    machine.used = 102 * MIB
    machine.guard.on_freed(NOTHING)
    assert machine.asked == ["all"]
    machine.asked.clear()
    assert machine.guard.kills == 0
    assert machine.look(103, 0.2) == machine.look(97, 1) == machine.look(150, 1) == []
    assert machine.look(162, 1) == ["one"]


def test_it_is_forgotten_when_memory_is_back(machine: Machine) -> None:
    """Well below the limit all is as before."""
    machine.look(101)
    machine.guard.on_freed(NOTHING)
    machine.asked.clear()
    assert machine.look(60, 1) == []
    assert machine.look(101, 1) == ["one"]


def test_what_nobody_uses_is_given_back_first(machine: Machine) -> None:
    """Nobody is ended for it."""
    assert machine.look(101) == ["one"]
    machine.guard.on_freed(OF_NOBODY)
    assert machine.guard.kills == 0
    # While it is given back somebody may take some.
    assert machine.look(130, 0.01) == []
    assert machine.look(130, 0.2) == ["one"]


def test_there_is_no_time_to_look_for_one(machine: Machine) -> None:
    """Halfway to where the host's kernel acts, or when process 1 does not answer, all are ended."""
    assert machine.look(201) == ["all"]
    assert machine.look(60, 1) == []
    assert machine.look(101, 1) == ["one"]
    assert machine.look(102, 0.3) == ["all"]
    # A late answer is counted, and changes nothing.
    machine.guard.on_freed(OF_ONE)
    assert machine.guard.kills == 1
    assert machine.look(102, 0.3) == []


def test_a_stopped_one_looks_no_more(machine: Machine) -> None:
    """Its sandbox is gone."""
    machine.guard.stop()
    assert machine.due is None
