"""What is taken for the machine's fault in tests that measure: no more than the process itself had no part in."""

import ctypes
import time

import pytest

from tests.runtime.hosts import Lag
from tests.stalls import Stalls

# Less is not noted.
_LEAST_S = 0.1


def _hold_on_at_work() -> float:
    """One call that lets no other thread run; returns how much of the processor it took, in seconds."""
    began_s = time.thread_time()
    sum(range(3 * 10**7))
    return time.thread_time() - began_s


def test_own_work_is_no_stall() -> None:
    """However late it makes all else in the process."""
    began, used_s = time.monotonic(), time.process_time()
    with Stalls.noted() as stalls:
        _hold_on_at_work()
    took_s, used_s = time.monotonic() - began, time.process_time() - used_s
    assert stalls.total_s < took_s - used_s + _LEAST_S


def test_time_without_the_processor_is_one() -> None:
    """Also when it is the last thing that happens."""
    with Stalls.noted() as stalls:
        ctypes.PyDLL(None).usleep(400_000)
    assert stalls.total_s > 0.2


async def test_a_loop_that_its_own_work_holds_up_is_late() -> None:
    """By all of that, also when it is the last thing that it does."""
    async with Lag.measured() as lag:
        used_s = _hold_on_at_work()
    assert lag.worst_s > used_s - _LEAST_S


@pytest.mark.parametrize(
    ("began", "ended", "stalled_s"), [(0, 9, 0), (9, 10.5, 0.5), (9, 12, 1.5), (11, 12, 1), (12, 20, 0), (9, 99, 3.5)]
)
def test_only_what_lies_in_a_time_counts_for_it(began: float, ended: float, stalled_s: float) -> None:
    """A stall takes nothing from what is late after it."""
    stalls = Stalls()
    stalls.note(10.0, 12.0, 0.5)
    stalls.note(30.0, 32.0, 0.0)
    stalls.note(40.0, 41.0, 2.0)
    assert stalls.between(began, ended) == stalled_s
