"""Volumes are shown to a container in rounds; nothing that is left of one is taken for the next."""

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from sandgate.sandbox.launcher.attaching import Namespaces, Wanted
from sandgate.sandbox.launcher.gvisor import showing
from sandgate.sandbox.launcher.gvisor.showing import Showing
from sandgate.sandbox.launcher.reactor import Reactor

LIMIT_S = 60.0


class World:
    """A container whose mounts and messages are only noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.attaching: list[Callable[[str | None], None]] = []
        self.places: list[str] = []
        self.sent = 0
        self.told: list[tuple[str, str | None]] = []
        self.problem: OSError | None = None
        monkeypatch.setattr(showing, "attach", self._attach)
        monkeypatch.setattr(Namespaces, "close", lambda _self: None)
        self.reactor = Reactor()
        self.showing = Showing(self.reactor, lambda: Namespaces(-1, -1), self._send)

    def _attach(self, _reactor: Any, _namespaces: Any, wanted: Sequence[Wanted], _limit_s: float, then: Any) -> None:
        if self.problem is not None:
            raise self.problem
        self.places += [each.path for each in wanted]
        self.attaching.append(then)

    def _send(self, _message: bytes) -> None:
        self.sent += 1

    def begin(self, name: str, count: int = 2) -> None:
        """Ask for so many; how it went is noted with the name."""
        wanted = [Wanted(f"/workspace/{name}{number}", False, lambda: -1) for number in range(count)]
        self.showing.begin(wanted, LIMIT_S, lambda reason: self.told.append((name, reason)))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A container of the test's own."""
    made = World(monkeypatch)
    yield made
    made.reactor._selector.close()


def test_all_of_a_round_are_shown(world: World) -> None:
    """It is said once, when the last one is answered."""
    world.begin("a")
    world.attaching[0](None)
    assert (world.sent, world.showing.on_told(0), world.told) == (2, True, [])
    assert world.showing.on_told(0)
    assert world.told == [("a", None)]
    assert not world.showing.on_told(0)


def test_what_is_answered_late_is_not_taken_for_the_next(world: World) -> None:
    """Neither as done before it is, nor as failed."""
    world.begin("a", 3)
    world.attaching[0](None)
    assert world.showing.on_told(errno.EBUSY)
    assert world.told == [("a", "nothing can be mounted at /workspace/a0: Device or resource busy")]
    world.begin("b")
    # Of the first, before anything of the second is attached, and behind that.
    assert world.showing.on_told(0)
    world.attaching[1](None)
    assert world.showing.on_told(errno.ENOENT)
    assert len(world.told) == 1
    assert world.showing.on_told(0)
    assert world.showing.on_told(0)
    assert world.told[1:] == [("b", None)]
    assert world.places == [f"/{number}" for number in range(5)]


def test_what_could_not_be_begun_leaves_nothing(world: World) -> None:
    """The next one is begun as if it had not been; so is one after what could not be attached."""
    world.problem = OSError(errno.EMFILE, "no more descriptors")
    with pytest.raises(OSError, match="no more descriptors"):
        world.begin("a")
    world.problem = None
    world.begin("b")
    world.attaching[0]("its disk is broken")
    assert world.told == [("b", "its disk is broken")]
    world.begin("c")
    world.attaching[0](None)
    assert world.sent == 0
    world.attaching[1](None)
    assert world.places == ["/0", "/1", "/2", "/3"]
    with pytest.raises(OSError, match="as many volumes"):
        world.begin("d")
    world.showing.close()
    world.showing.close()
    assert world.told[1:] == [("c", "it has ended")]
