"""What is counted for an execution, from counters that stand still when nobody moves them."""

import os
from pathlib import Path

import pytest

from sandgate.sandbox.endings import usage_of
from sandgate.sandbox.meter import Measured, Meter
from sandgate_agent.wire import Exited


class Counter:
    """A file that says how much."""

    def __init__(self, path: Path, text: str = "0") -> None:
        self.path = path
        path.write_text(text)
        self.end = os.open(path, os.O_RDWR)

    def set(self, number: int) -> None:
        """So much by now."""
        self.path.write_text(f"{number}\n")


@pytest.fixture
def time(tmp_path: Path) -> Counter:
    """The whole sandbox's time, in nanoseconds."""
    return Counter(tmp_path / "time")


@pytest.fixture
def peak(tmp_path: Path) -> Counter:
    """The whole sandbox's memory."""
    return Counter(tmp_path / "peak")


def test_time_of_slots_is_told_apart(time: Counter, peak: Counter, tmp_path: Path) -> None:
    """The first slot has what is not of others, also of those that are gone."""
    other = Counter(tmp_path / "other")
    meter = Meter({"time": time.end, "peak": peak.end})
    first = meter.begin()
    meter.add(1, other.end)
    second = meter.begin(1)
    time.set(50_000_000)
    other.set(30_000_000)
    assert second.end().cpu_us == 30_000
    meter.remove(1)
    time.set(55_000_000)
    assert first.end().cpu_us == 25_000
    assert first.end() is first.end()
    later = meter.begin()
    time.set(56_000_000)
    assert later.end().cpu_us == 1000
    meter.close()


def test_what_cannot_be_told_apart_is_not_told(time: Counter, peak: Counter) -> None:
    """Of slots without a counter, only of one that ran alone is the time known."""
    meter = Meter({"time": time.end, "peak": peak.end})
    first, second = meter.begin(), meter.begin(1)
    time.set(10_000)
    assert (first.end().cpu_us, second.end().cpu_us) == (None, None)
    alone = meter.begin(1)
    time.set(90_000)
    assert alone.end().cpu_us == 80
    meter.close()


def test_each_has_the_most_memory_of_its_own_time(time: Counter, peak: Counter) -> None:
    """What was before it began, or after it ended, is not its own."""
    meter = Meter({"time": time.end, "peak": peak.end})
    peak.set(900)
    first = meter.begin()
    peak.set(500)
    second = meter.begin()
    peak.set(100)
    assert first.end().peak_memory_bytes == 500
    peak.set(200)
    assert second.end().peak_memory_bytes == 200
    meter.close()


def test_version_2(tmp_path: Path) -> None:
    """Its counter of time says more than one thing."""
    time = Counter(tmp_path / "time", "usage_usec 100\nuser_usec 90\n")
    meter = Meter({"time": time.end})
    metering = meter.begin()
    time.path.write_text("usage_usec 350\nuser_usec 90\n")
    assert metering.end() == Measured(250, None)
    meter.close()


def test_nothing_to_count_with(time: Counter) -> None:
    """No counters, those of a group that is gone, and a peak that cannot be set back."""
    assert Meter().begin().end() == Measured()
    os.close(time.end)
    meter = Meter({"time": os.open("/proc/self/mem", os.O_RDONLY), "peak": os.open("/proc/self/stat", os.O_RDONLY)})
    assert meter.begin().end() == Measured()
    meter.close()
    meter.close()


@pytest.mark.parametrize(
    ("told_us", "measured", "ms"),
    [
        (3000, Measured(4900), 3),  # the service's own work around it
        (3000, Measured(90_000), 90),  # work that nobody told of
        (2**60, Measured(3000), 3),  # a lie
        (90_000, Measured(30_000, is_whole=False), 90),  # it had begun before somebody looked
        (3000, Measured(90_000, is_whole=False), 90),
        (3000, Measured(), 3),
        (None, Measured(70_000), 70),
        (None, Measured(), 0),
    ],
)
def test_what_is_told_is_held_against_what_is_counted(told_us: int | None, measured: Measured, ms: int) -> None:
    """It stands where the two agree."""
    exited = None if told_us is None else Exited(1, 0, told_us, 0, 4096)
    assert usage_of(exited, measured).cpu_ms == ms


def test_memory_that_was_counted_stands() -> None:
    """What the largest process told is for where nothing is counted."""
    exited = Exited(1, 0, 0, 0, 4096)
    assert usage_of(exited, Measured(peak_memory_bytes=77)).peak_memory_bytes == 77
    assert usage_of(exited, Measured()).peak_memory_bytes == 4096
