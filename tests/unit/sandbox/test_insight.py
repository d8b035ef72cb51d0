"""What a container tells of itself: bounded, never waited for long, and taken only when it was asked for."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from sandgate.core.limits import Limits
from sandgate.sandbox.launcher.gvisor import insight
from sandgate.sandbox.launcher.gvisor.insight import Insight
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate_agent import wire

_LIMITS = replace(Limits(), processes=10, disk_bytes=1000, inodes=50)
Figures = Mapping[str, int | None]


class Told:
    """What became of questions."""

    def __init__(self) -> None:
        self.looks = 0
        self.found: list[Figures] = []
        self.reactor = Reactor()
        self.insight = Insight(self.reactor, _LIMITS, self._look)

    def _look(self) -> None:
        self.looks += 1

    def ask(self) -> None:
        """Ask once more."""
        self.insight.ask(self.found.append)


def test_one_answer_for_all_who_ask() -> None:
    """And the most that was seen stays."""
    told = Told()
    told.ask()
    told.ask()
    assert told.looks == 1
    assert told.insight.on_told(wire.Held(3, 700, None))
    assert told.found == [
        {"processes": 3, "peak_processes": 3, "disk_bytes": 700, "peak_disk_bytes": 700, "inodes": None}
    ] * 2  # fmt: skip
    told.ask()
    assert told.insight.on_told(wire.Held(1, 800, 7))
    assert told.found[2] == {
        "processes": 1, "peak_processes": 3, "disk_bytes": 800, "peak_disk_bytes": 800, "inodes": 7,
    }  # fmt: skip
    assert told.insight.most() == {"peak_processes": 3, "peak_disk_bytes": 800}


def test_figures_are_bounded_by_what_was_granted() -> None:
    """Whatever is claimed."""
    told = Told()
    told.ask()
    told.insight.on_told(wire.Held(2**50, 2**50, 2**50))
    assert told.found == [
        {"processes": 10, "peak_processes": 10, "disk_bytes": 1000, "peak_disk_bytes": 1000, "inodes": 50}
    ]  # fmt: skip


def test_what_was_not_asked_for() -> None:
    """Is a lie."""
    told = Told()
    assert not told.insight.on_told(wire.Held(1, 1, 1))
    told.ask()
    assert told.insight.on_told(wire.Held(1, 1, 1))
    assert not told.insight.on_told(wire.Held(1, 1, 1))


def test_one_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it long, and it is not asked again before it has; what is late counts for the next."""
    monkeypatch.setattr(insight, "_PATIENCE_S", 0.0)
    told = Told()
    told.ask()
    told.reactor.call_later(0.01, told.reactor.stop)
    told.reactor.run()
    nothing = {"peak_processes": None, "peak_disk_bytes": None}
    assert told.found == [nothing]
    told.ask()
    assert (told.looks, told.found) == (1, [nothing])
    assert told.insight.on_told(wire.Held(1, 2, 3))
    assert told.found[1]["disk_bytes"] == 2


def test_the_end() -> None:
    """Whoever waits is told what is known."""
    told = Told()
    told.ask()
    told.insight.close()
    assert len(told.found) == 1


@pytest.mark.parametrize(
    "message",
    [b"", b"O", wire.pack_held(1, 2, 3)[:-1], wire.pack_held(1, 2, 3) + b"x", wire.pack_held(-1, 0, 0),
     wire.pack_held(0, -1, 0), wire.pack_held(0, 0, -2), wire.pack_held(2**60, 0, 0), b"x" * 25],
)  # fmt: skip
def test_what_does_not_fit(message: bytes) -> None:
    """Is an error of the protocol and nothing else."""
    with pytest.raises(wire.WireError):
        wire.parse_held(message)


def test_what_fits() -> None:
    """Comes back as it went, with and without a number of files."""
    for held in (wire.Held(1, 2, 3), wire.Held(0, 0, None), wire.Held(0, 0, 0)):
        assert wire.parse_held(wire.pack_held(*held)) == held
