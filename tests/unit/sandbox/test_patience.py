"""How long the launcher waits for a gateway that says nothing, and what it does when it stood still itself."""

import time
from typing import cast

import pytest

from sandgate.sandbox.launcher.kept import Patience
from sandgate.sandbox.launcher.reactor import Callback, Reactor, Timer


class _Hand:
    """A reactor whose time a test moves; a timer is called when it is, or later."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def call_at(self, moment: float, callback: Callback) -> Timer:
        """See ``Reactor``."""
        self.timers.append(Timer(moment, len(self.timers), callback))
        return self.timers[-1]

    def cancel(self, timer: Timer) -> None:
        """See ``Reactor``."""
        self.timers.remove(timer)

    def go_on(self, seconds: float) -> None:
        """Look at the timers once, so much later."""
        self.now += seconds
        for timer in [timer for timer in self.timers if timer.moment <= self.now]:
            self.timers.remove(timer)
            assert timer.callback is not None
            timer.callback()


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> _Hand:
    """A moment that stands still."""
    return _Hand(monkeypatch)


@pytest.fixture
def ended(hand: _Hand) -> tuple[Patience, list[float]]:
    """A gateway that has said for 4 seconds that it lives, and when it was given up."""
    found: list[float] = []
    patience = Patience(cast(Reactor, hand), lambda: found.append(hand.now))
    patience.extend(4)
    return patience, found


def test_a_silent_gateway_is_given_up_in_time(hand: _Hand, ended: tuple[Patience, list[float]]) -> None:
    """And one that goes on saying so is not."""
    patience, found = ended
    for _step in range(10):
        hand.go_on(1.0)
        patience.extend(4)
    assert found == []
    for _step in range(40):
        hand.go_on(0.1)
    assert found == [pytest.approx(1014.0, abs=0.2)]


def test_who_stood_still_hears_first(hand: _Hand, ended: tuple[Patience, list[float]]) -> None:
    """What the gateway has said meanwhile waits to be read; nothing is given up before."""
    patience, found = ended
    hand.go_on(60.0)
    assert found == []
    patience.extend(4)
    for _step in range(39):
        hand.go_on(0.1)
    assert found == []


def test_who_stood_still_and_hears_nothing_gives_up(hand: _Hand, ended: tuple[Patience, list[float]]) -> None:
    """The gateway was silent all the time."""
    _patience, found = ended
    hand.go_on(60.0)
    for _step in range(21):
        hand.go_on(0.1)
    assert found == [pytest.approx(1062.0, abs=0.2)]
