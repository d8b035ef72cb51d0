"""How many sandboxes are made ahead."""

import operator
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.core.limits import MIB, Limits
from sandgate.sandbox.launcher.life import Life
from sandgate.sandbox.launcher.reactor import Blame, Callback, Reactor, Timer
from sandgate.sandbox.launcher.sandbox import Sandbox, can_become
from sandgate.sandbox.launcher.spares import Demand, Spares
from sandgate.sandbox.pools_probe import memory_of_machine
from sandgate.sandbox.spare_counts import choose_spare_counts, memory_in_reach


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


ONE, OTHER = Limits(), Limits(memory_bytes=64 * MIB)


class Soon(Reactor):
    """Calls back when the test says so, whatever the time is."""

    def call_later(self, seconds: float, callback: Callback, blame: Blame | None = None) -> Timer:
        """Not before the next round."""
        return super().call_later(0.0 if seconds < 1.0 else seconds, callback, blame)

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
        self.breaks = False

    def become(self, limits: Limits) -> None:
        """Note it, or fail."""
        if self.breaks:
            raise OSError(5, "broken")
        self.limits = limits

    def kill(self, _reason: str) -> None:
        """Note it."""
        self.ending = True


class World:
    """Spares that are made at once, and what was made."""

    def __init__(self, fits: Callable[[Limits, Limits], bool], most: int = 64) -> None:
        self.reactor = Soon()
        self.made: list[Made] = []
        self.spares = Spares(Demand(2, most), self.reactor, ONE, self._make, lambda: False, fits)

    def _make(self) -> Life:
        made = Made(ONE)
        self.made.append(made)
        self.reactor.call_later(0.0, lambda: self.spares.on_ready(made))
        return made

    def take(self, limits: Limits) -> Life | None:
        """Ask once, and let what follows from that happen."""
        taken = self.spares.take(limits)
        self.reactor.go_on()
        return taken

    def close(self) -> None:
        """Let go of the reactor."""
        self.reactor._selector.close()


@pytest.fixture(params=[operator.eq, can_become])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Spares whose limits can be changed, and spares whose cannot; what a test asks for it asks for at once."""
    monkeypatch.setattr(Demand, "WINDOW_S", 3600.0)
    made = World(request.param)
    yield made
    made.close()


def test_an_exception_takes_nobodys_spares_away(world: World) -> None:
    """Who asks for other limits once in a while gets them from a spare, or none; those of the others stay."""
    for _time in range(40):
        world.spares.take(ONE)
    world.reactor.go_on()
    count = len(world.made)
    assert 30 < count <= 41
    can_change = world.spares._fits is can_become
    for _time in range(5):
        taken = world.take(OTHER)
        assert (taken.limits if taken else None) == (OTHER if can_change else None)
        assert getattr(world.take(ONE), "limits", None) == ONE
    assert not any(each.ending for each in world.made)


def test_many_exceptions_take_nobodys_spares_away(world: World) -> None:
    """However many come in a row: what is made is what the template gives, and that is there for who asks for it."""
    world.take(ONE)
    for number in range(40):
        world.take(Limits(memory_bytes=(64 + number) * MIB))
    assert getattr(world.take(ONE), "limits", None) == ONE
    assert not any(each.ending for each in world.made)


def test_a_spare_that_cannot_be_changed_is_ended() -> None:
    """And no other one is tried, which would end as well."""
    world = World(can_become)
    world.take(ONE)
    broken = world.made[-1]
    broken.breaks = True
    assert world.take(OTHER) is None
    assert [each for each in world.made if each.ending] == [broken]
    assert getattr(world.take(OTHER), "limits", None) == OTHER
    world.close()


class Noted(Reactor):
    """Keeps what is to be called back, and how much later."""

    def __init__(self) -> None:
        super().__init__()
        self.due: list[tuple[float, Callback]] = []

    def call_later(self, seconds: float, callback: Callback, blame: Blame | None = None) -> Timer:
        """Note it."""
        self.due.append((seconds, callback))
        return Timer(0.0, 0, callback, blame)

    def look(self) -> float:
        """Call back what is due first, and answer how long from now it looks again; 0 when it makes a spare."""
        seconds, callback = min(self.due, key=lambda entry: entry[0])
        self.due.remove((seconds, callback))
        before = len(self.due)
        callback()
        return self.due[-1][0] if len(self.due) > before else 0.0


class Row:
    """Spares of which so many are wanted, all of them made, none of which the test has not asked for."""

    def __init__(self, demand: Demand) -> None:
        self.reactor = Noted()
        self.made: list[Life] = []
        self.spares = Spares(demand, self.reactor, ONE, self._make, lambda: False)
        self.spares.take(ONE)

    def _make(self) -> Life:
        self.made.append(Made(ONE))
        return self.made[-1]

    def fill(self, count: int) -> list[float]:
        """Make so many; how long it waited before each but the first."""
        waited = []
        for _time in range(count):
            assert self.reactor.look() == 0.0
            self.spares.on_ready(self.made[-1])
            waited.append(self.reactor.due[-1][0])
        return waited


@pytest.fixture
def row() -> Iterator[Callable[[Demand], Row]]:
    """Makes one, and lets go of its reactor."""
    rows = []

    def make(demand: Demand) -> Row:
        rows.append(Row(demand))
        return rows[-1]

    yield make
    for each in rows:
        each.reactor._selector.close()


def test_spares_wait_while_they_are_asked_for(row: Callable[[Demand], Row]) -> None:
    """As long as there are some: the machine's time belongs to those that were just handed out."""
    asked = row(Demand(16, 16))
    asked.fill(16)
    for left in range(15, 2, -1):
        assert asked.spares.take(ONE) is asked.made[left]
        assert asked.reactor.look() > 0.001
    # Not asked for again: it has been quiet.
    assert asked.reactor.look() == 0.0
    asked.spares.on_ready(asked.made[-1])
    asked.spares.take(ONE)
    asked.spares.take(ONE)
    # Two are left, so that there is no waiting.
    assert asked.reactor.look() == 0.0


def test_more_than_most_uses_need_are_made_in_no_hurry(row: Callable[[Demand], Row]) -> None:
    """A server that has just started is not busy for a second with what may never be asked for."""
    waited = row(Demand(64, 128)).fill(63)
    assert max(waited[:15]) < 0.01 < min(waited[15:])


def test_a_burst_is_made_ready_for_at_once(row: Callable[[Demand], Row]) -> None:
    """Whoever asks for a hundred at once may do so again."""
    demand = Demand(64, 128)
    crowd = row(demand)
    _ask(demand, 100, time.monotonic())
    assert demand.is_raised
    assert max(crowd.fill(90)) < 0.01


@pytest.mark.parametrize(
    ("asked", "most_asked", "memory_gib", "counts"),
    [
        (None, None, 0.5, (8, 10)),
        (None, None, 2, (16, 20)),
        (None, None, 8, (64, 80)),
        (None, None, 1024, (100, 125)),
        (None, 10, 8, (10, 10)),
        (None, 0, 8, (0, 0)),
        (None, 90, 8, (64, 90)),
        (300, None, 1, (300, 375)),
        (4, 7, 1, (4, 7)),
        (0, None, 8, (0, 0)),
        (0, 50, 8, (0, 0)),
    ],
)
def test_how_many_there_are(
    asked: int | None, most_asked: int | None, memory_gib: float, counts: tuple[int, int]
) -> None:
    """By the machine's memory, where the settings leave it open; none means none, after bursts too."""
    assert choose_spare_counts(asked, most_asked, int(memory_gib * 1024) * MIB) == counts


def test_few_are_kept_of_what_holds_more_than_memory() -> None:
    """A loop device each, or descriptors and pipes of one user."""
    assert choose_spare_counts(None, None, 64 * 1024 * MIB, are_dear=True) == (16, 20)
    assert choose_spare_counts(90, None, 64 * 1024 * MIB, are_dear=True) == (90, 112)


_MOUNTS = {
    1: "30 20 0:1 /root {0} rw - cgroup cgroup rw,memory\n31 20 0:2 / /c rw - cgroup cgroup rw,cpu,cpuacct,pids\n",
    2: "30 20 0:1 /root {0} rw - cgroup2 cgroup2 rw\n",
}
_OWN = {1: "4:memory:/root/a/b\n2:cpu:/x\n", 2: "0::/root/a/b\n"}
_NAMES = {1: "memory.limit_in_bytes", 2: "memory.max"}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("limits", "reach"),
    [
        (("max", "max", "max"), None),
        (("max", "2000", "max"), 2000),
        (("4000", "9223372036854771712", "3000"), 3000),
        ((None, None, "5000"), 5000),
    ],
)
def test_a_server_reaches_no_further_than_its_groups(
    tmp_path: Path, version: int, limits: tuple[str | None, ...], reach: int | None
) -> None:
    """Its own, and those above it as far as they are seen, as in a container."""
    mount, process = tmp_path / "mount", tmp_path / "process"
    process.mkdir()
    (process / "mountinfo").write_text(_MOUNTS[version].format(mount))
    (process / "cgroup").write_text(_OWN[version])
    for folder, limit in zip((mount, mount / "a", mount / "a/b"), limits, strict=True):
        folder.mkdir()
        if limit is not None:
            (folder / _NAMES[version]).write_text(f"{limit}\n")
    (mount / "cgroup.controllers").write_text("memory cpu pids\n")
    assert memory_in_reach(process) == (memory_of_machine() if reach is None else reach)


@pytest.mark.parametrize("own", ["", "4:memory:/elsewhere\n"])
def test_a_server_whose_groups_are_not_seen_reaches_what_is_seen(tmp_path: Path, own: str) -> None:
    """The mount's own limit, or the machine's memory."""
    (tmp_path / "mountinfo").write_text(_MOUNTS[1].format(tmp_path))
    (tmp_path / "cgroup").write_text(own)
    assert memory_in_reach(tmp_path) == memory_of_machine()
    (tmp_path / "memory.limit_in_bytes").write_text("1234\n")
    assert memory_in_reach(tmp_path) == 1234
    (tmp_path / "mountinfo").write_text("")
    assert memory_in_reach(tmp_path) == memory_of_machine()
