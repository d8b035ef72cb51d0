"""A forker that is to put itself into its control group is believed nothing: it goes on in its group, or not at all."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sandgate.core.errors import MechanismFault
from sandgate.sandbox.launcher.cgroup import Group
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.slot import Slot
from sandgate.sandbox.launcher.zygote import Zygote
from sandgate_agent import wire
from tests.unit.sandbox.conftest import settle_reactor


class SomeGroup:
    """A group, and what was done about it. ``entered``: whether the process is in it."""

    def __init__(self, entered: bool) -> None:
        self.entered = entered
        self.attached: list[tuple[int, str]] = []
        self.opened: list[int] = []

    def open_entries(self, _part: str) -> list[int]:
        """Two files."""
        self.opened = [os.open(os.devnull, os.O_WRONLY) for _ in range(2)]
        return list(self.opened)

    def has_entered(self, _pid: int, _part: str) -> bool:
        """As the test says."""
        return self.entered

    def attach(self, pid: int, part: str) -> None:
        """Note it."""
        self.attached.append((pid, part))


class World:
    """A slot, the process that is to be its forker, and the zygote that has cloned it."""

    def __init__(self, *, entered: bool, is_built: bool = False) -> None:
        self.reactor = Reactor()
        self.group = SomeGroup(entered)
        self.asked: list[tuple[dict[str, object], list[int]]] = []
        self.ready: list[Slot] = []
        self.dead: list[str] = []
        self.pid = os.fork()
        if self.pid == 0:
            signal.pause()
            os._exit(0)
        zygote = SimpleNamespace(
            template=SimpleNamespace(is_built=is_built), pid=os.getpid(), patience_s=60.0, clone=self._clone
        )
        self.slot = Slot(
            cast("Zygote", zygote), self.reactor, group=cast("Group", self.group), host_id=None, maps_ids=True,
            part="p", root=None, on_ready=self.ready.append, on_dead=lambda slot: self.dead.append(slot.reason),
        )  # fmt: skip
        self.slot.start({"joins": False}, [])
        self.forker = socket.socket(fileno=os.dup(self.asked[0][1][1]))
        for end in self.asked[0][1]:
            os.close(end)

    def _clone(self, request: dict[str, object], ends: list[int], on_cloned: Callable[[int | None], None]) -> None:
        self.asked.append((request, ends))
        self.on_cloned = on_cloned

    def tell_cloned(self) -> None:
        """The zygote has cloned it."""
        self.on_cloned(os.pidfd_open(self.pid))
        self.turn()

    def say(self, message: bytes) -> None:
        """The forker says something."""
        self.forker.send(message)
        self.turn()

    def heard(self) -> bytes:
        """What the launcher has said to it."""
        try:
            return self.forker.recv(100, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""

    def turn(self) -> None:
        """Let the reactor look at what there is."""
        settle_reactor(self.reactor)

    def close(self) -> None:
        """End all of it."""
        self.slot.kill("the test is over")
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.turn()
        self.forker.close()
        self.reactor._selector.close()


@pytest.fixture
def world() -> Iterator[Callable[..., World]]:
    """Makes one."""
    made: list[World] = []

    def make(**fields: Any) -> World:
        made.append(World(**fields))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("says_first", [True, False])
def test_one_that_has_entered_goes_on(world: Callable[..., World], says_first: bool) -> None:
    """Once it has said so and is known, in whatever order; nobody moves it."""
    here = world(entered=True)
    assert here.asked[0][0]["entries"] == 2
    steps = [lambda: here.say(wire.ENTERED), here.tell_cloned]
    steps[not says_first]()
    assert here.heard() == b""
    steps[says_first]()
    assert (here.heard(), here.group.attached) == (wire.GO, [])
    here.say(wire.READY)
    assert here.ready == [here.slot]


def test_one_that_lies_is_moved(world: Callable[..., World]) -> None:
    """It says that it has entered, and has not: a zygote or a forker that does so gains nothing."""
    here = world(entered=False)
    here.tell_cloned()
    here.say(wire.ENTERED)
    assert (here.heard(), here.group.attached) == (wire.GO, [(here.pid, "p")])


def test_one_that_says_nothing_does_not_go_on(world: Callable[..., World]) -> None:
    """Its time to be built runs out."""
    here = world(entered=True)
    here.tell_cloned()
    assert (here.heard(), here.group.attached, here.ready) == (b"", [], [])


def test_it_is_said_once(world: Callable[..., World]) -> None:
    """What else it says is why it could not be built."""
    here = world(entered=True)
    here.tell_cloned()
    here.say(wire.ENTERED)
    here.say(wire.ENTERED)
    os.waitid(os.P_PID, here.pid, os.WEXITED | os.WNOWAIT)
    here.turn()
    assert here.dead == [f"it could not be built: {wire.ENTERED.decode()}"]


def test_a_zygote_with_the_packages_of_users_is_handed_nothing(world: Callable[..., World]) -> None:
    """It could keep the files, and move what it has cloned later; its forkers are moved from outside."""
    here = world(entered=False, is_built=True)
    assert (here.asked[0][0]["entries"], len(here.asked[0][1]), here.group.opened) == (0, 2, [])
    here.tell_cloned()
    assert (here.heard(), here.group.attached) == (wire.GO, [(here.pid, "p")])


def test_a_group_that_is_gone_leaves_nothing_open(world: Callable[..., World]) -> None:
    """Whoever asks for the slot is told."""
    here = world(entered=True)

    def fail(_part: str) -> list[int]:
        raise OSError(2, "gone")

    here.group.open_entries = fail  # type: ignore[method-assign]
    other = Slot(
        here.slot.zygote, here.reactor, group=cast("Group", here.group), host_id=None, maps_ids=True, part="",
        root=None, on_ready=here.ready.append, on_dead=lambda slot: here.dead.append(slot.reason),
    )  # fmt: skip
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises((OSError, MechanismFault)):
        other.start({"joins": False}, [])
    assert len(os.listdir("/proc/self/fd")) == before
