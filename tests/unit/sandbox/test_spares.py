"""How many sandboxes are made ahead."""

from hypothesis import given
from hypothesis import strategies as st

from sandgate.core.limits import MIB, Limits
from sandgate.sandbox.launcher.reactor import Callback, Reactor, Timer
from sandgate.sandbox.launcher.sandbox import Sandbox
from sandgate.sandbox.launcher.spares import Demand, Spares


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


class Soon(Reactor):
    """Calls back when the test says so, whatever the time is."""

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        """Not before the next round."""
        return super().call_later(0.0 if seconds < 1.0 else seconds, callback)

    def go_on(self) -> None:
        """Until nothing is due."""
        for _round in range(300):
            super().call_later(0.0, self.stop)
            self._stopped = False
            self.run()


class Made(Sandbox):
    """A spare that is neither built nor ended."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.ending = False

    def kill(self, _reason: str) -> None:
        """Note it."""
        self.ending = True


def test_limits_in_turn_do_not_have_the_most_made_and_thrown_away() -> None:
    """What a burst with some limits has raised does not hold for others."""
    reactor, made = Soon(), []

    def make(limits: Limits) -> Sandbox:
        made.append(Made(limits))
        reactor.call_later(0.0, lambda: spares.on_ready(made[-1]))
        return made[-1]

    spares = Spares(Demand(2, 64), reactor, make, lambda: False)
    one, other = Limits(), Limits(memory_bytes=64 * MIB)
    for _time in range(40):
        spares.take(one)
    reactor.go_on()
    assert 30 < len([each for each in made if not each.ending]) <= 41
    for _time in range(5):
        for limits in (other, one):
            made.clear()
            assert spares.take(limits) is None
            reactor.go_on()
            assert len(made) == 2
    reactor._selector.close()
