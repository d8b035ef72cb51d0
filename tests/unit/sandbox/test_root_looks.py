"""What waits for a root file system to be looked at: told once, given up at once, and apart from each other."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandgate.sandbox.launcher.errand import Errand
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.root_folder import RootFolder, look_at
from sandgate.sandbox.launcher.root_looks import RootLooks
from sandgate_agent import system

ROOT = "root-0123456789ab"


class World:
    """Real looks, one after the other; what they came to is noted."""

    def __init__(self, layers: Path) -> None:
        self.reactor = Reactor()
        self.looks = RootLooks(self.reactor, layers)
        self.told: list[tuple[str, RootFolder | None, str]] = []

    def begin(self, name: str, root: str = ROOT) -> None:
        """An environment comes to wait."""
        self.looks.begin(name, root, lambda found, reason: self.told.append((name, found, reason)))

    def run(self, count: int = 0) -> None:
        """Until so many have been told, and no process is left."""

        def look() -> None:
            if len(self.told) >= count and not self.reactor.allowance.held:
                self.reactor.stop()
            else:
                self.reactor.call_later(0.001, look)

        late = self.reactor.call_later(120, lambda: os.kill(os.getpid(), signal.SIGALRM))
        self.reactor._stopped = False
        look()
        self.reactor.run()
        self.reactor.cancel(late)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """With a root file system."""
    (tmp_path / ROOT / "usr" / "lib").mkdir(parents=True)
    (tmp_path / ROOT / "bin").symlink_to("usr/bin")
    made = World(tmp_path)
    yield made
    made.run()
    made.reactor._selector.close()


def _count_processes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    clone: Callable[[int], int] = system.clone
    made: list[int] = []

    def counted(flags: int) -> int:
        pid = clone(flags)
        made.append(pid)
        return pid

    monkeypatch.setattr(system, "clone", counted)
    return made


def test_it_is_looked_at_elsewhere_and_once(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait; nothing of the disk is touched by the launcher itself."""
    made = _count_processes(monkeypatch)
    expected = look_at(tmp_path, ROOT)
    for name in ("a", "b"):
        world.begin(name)
    assert (world.told, "a" in world.looks) == ([], True)
    world.run(2)
    assert world.told == [("a", expected, ""), ("b", expected, "")]
    assert ("a" in world.looks, len(made)) == (False, 1)


def test_what_cannot_be_shown_is_said(world: World, tmp_path: Path) -> None:
    """Also where it would take more words than a process has for it."""
    world.begin("a", "root-missing")
    for number in range(20):
        (tmp_path / ROOT / f"link-{number}").symlink_to("x" * 4000)
    world.begin("b")
    world.run(2)
    assert {name: reason for name, _found, reason in world.told} == {
        "a": "No such file or directory",
        "b": "the names and links in its root are too long together",
    }


def test_one_that_is_given_up_is_told_at_once(world: World, tmp_path: Path) -> None:
    """And not again, though it may come again, for another one."""
    (tmp_path / "root-other" / "app").mkdir(parents=True)
    world.begin("a")
    world.looks.give_up("a", "it was deleted")
    world.looks.give_up("never", "it was deleted")
    assert world.told == [("a", None, "it was deleted")]
    world.begin("a", "root-other")
    world.run(2)
    assert world.told[1:] == [("a", RootFolder("root-other", (), ("/app",)), "")]
    world.begin("b")
    world.looks.give_up_all("nobody waits")
    assert world.told[2:] == [("b", None, "nobody waits")]


def test_one_that_fails_is_nobody_elses_affair(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """It is told why, and the others what there is."""

    def fail(found: RootFolder | None, reason: str) -> None:
        if found is not None:
            raise KeyError("a bug")
        world.told.append(("bad", None, reason))

    world.looks.begin("bad", ROOT, fail)
    world.begin("good")
    world.run(2)
    assert [(name, found is None) for name, found, _reason in world.told] == [("bad", True), ("good", False)]
    assert "KeyError" in world.told[0][2]
    assert "a callback failed" in capfd.readouterr().err


def test_one_that_cannot_be_looked_at_now(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told so, and leaves nothing."""

    def fail(_flags: int) -> int:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(Errand, "_start", lambda *_arguments: fail(0))
    world.begin("a")
    assert world.told == [("a", None, "Resource temporarily unavailable")]
    assert "a" not in world.looks
    assert world.reactor.allowance.held == 0
