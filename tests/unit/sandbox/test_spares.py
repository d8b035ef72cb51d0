"""How many sandboxes are made ahead."""

from hypothesis import given
from hypothesis import strategies as st

from sandgate.sandbox.launcher.spares import Demand


def _ask(demand: Demand, times: int, now: float) -> None:
    for _time in range(times):
        demand.ask(now)


def test_a_burst_raises_the_demand_up_to_the_most() -> None:
    """Within a second, as many are wanted as were asked for."""
    demand = Demand(4, 64)
    _ask(demand, 3, 10.0)
    assert demand.wanted == 4
    _ask(demand, 20, 10.5)
    assert demand.wanted == 23
    _ask(demand, 100, 10.9)
    assert demand.wanted == 64


def test_a_trickle_raises_nothing() -> None:
    """One a second is what the least number of spares is for."""
    demand = Demand(4, 64)
    for second in range(100):
        demand.ask(10.0 + 1.5 * second)
    assert demand.wanted == 4


def test_quiet_minutes_lower_it_by_halves_to_the_least() -> None:
    """And then there is no need to look again."""
    demand = Demand(4, 64)
    _ask(demand, 64, 10.0)
    assert demand.settle(40.0) == 30.0
    assert demand.wanted == 64
    seen = []
    now = 70.0
    while (again_s := demand.settle(now)) is not None:
        seen.append(demand.wanted)
        now += again_s
    assert (seen, demand.wanted) == ([32, 16, 8], 4)


def test_none_are_wanted_after_the_stop() -> None:
    """Not even when somebody asks."""
    demand = Demand(4, 64)
    demand.stop()
    _ask(demand, 5, 1.0)
    assert demand.wanted == 0


@given(st.integers(0, 8), st.integers(0, 100), st.lists(st.tuples(st.floats(0, 300), st.booleans()), max_size=200))
def test_it_stays_within_its_bounds(least: int, most: int, events: list[tuple[float, bool]]) -> None:
    """Whatever happens, in whatever order."""
    demand = Demand(least, most)
    for moment, asked in sorted(events):
        if asked:
            demand.ask(moment)
        else:
            demand.settle(moment)
        assert least <= demand.wanted <= max(least, most)
