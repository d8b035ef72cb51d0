"""How often is often enough."""

import pytest

from sandgate.core.clock import ManualClock
from sandgate.workflows.rates import Rates


def test_a_burst_and_then_an_even_flow() -> None:
    """As many as allowed at once, then one for each that time brings; the wait that is told is enough."""
    clock = ManualClock()
    rates = Rates(clock, 10, 60.0)
    assert [rates.take("a") for _ in range(10)] == [0.0] * 10
    wait_s = rates.take("a")
    assert wait_s == pytest.approx(6.0)
    assert rates.take("b") == 0.0
    clock.advance(wait_s)
    assert rates.take("a") == 0.0
    assert rates.take("a") > 0


def test_no_more_than_a_window_is_saved_up() -> None:
    """However long nothing came; and asking in vain costs nothing."""
    clock = ManualClock()
    rates = Rates(clock, 3, 1.0)
    clock.advance(1000)
    assert [rates.take("a") == 0 for _ in range(6)] == [True] * 3 + [False] * 3
    clock.advance(1)
    assert [rates.take("a") == 0 for _ in range(4)] == [True] * 3 + [False]


def test_memory_is_bounded() -> None:
    """The longest unused are forgotten."""
    rates = Rates(ManualClock(), 1, 60.0, keys=100)
    for key in range(1000):
        assert rates.take(key) == 0.0
    assert len(rates._held) == 100
