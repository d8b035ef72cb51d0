"""Looks at what has come since the last one."""

from datetime import timedelta

from sandgate.core.clock import ManualClock
from sandgate.core.lookback import Lookback


def test_a_look_goes_back_to_the_one_before_and_a_little_farther() -> None:
    """The first is at everything; what comes while a look is under way is not missed by the next."""
    clock = ManualClock()
    looks = Lookback(clock)
    assert looks.begin() is None
    began_at = clock.now()
    clock.advance(20)
    looks.end(None)
    clock.advance(60)
    assert looks.begin() == began_at - timedelta(minutes=10)


def test_a_look_that_failed_is_done_again() -> None:
    """As far back as it would have gone, also when it was the first."""
    clock = ManualClock()
    looks = Lookback(clock)
    assert looks.begin() is None
    assert looks.begin() is None
    looks.end(None)
    clock.advance(60)
    since = looks.begin()
    clock.advance(60)
    assert looks.begin() == since
    looks.end(since)
    assert looks.begin() == clock.now() - timedelta(minutes=10)


def test_every_hour_there_is_a_look_at_everything() -> None:
    """Counted by a clock that nobody sets."""
    clock = ManualClock()
    looks = Lookback(clock)
    found = []
    for _minute in range(180):
        since = looks.begin()
        looks.end(since)
        found.append(since is None)
        clock.advance(60)
    assert [minute for minute, is_whole in enumerate(found) if is_whole] == [0, 60, 120]
