"""Executions that an earlier gateway began in a sandbox, until somebody takes them up or lets go of them."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sandgate.sandbox.child_ends import open_child
from sandgate.sandbox.execution import WaitingChild
from sandgate.sandbox.launcher.client import Reply
from sandgate.sandbox.slot import Interruptible, Slot
from sandgate_agent import wire

# An execution's socket and its two pipes; what comes beyond is the control socket of its slot.
_CHILD_DESCRIPTORS = 3


class Keep(Protocol):
    """Has a child's ends kept for a later gateway."""

    def __call__(self, tag: str, child: WaitingChild, slot: Slot, kills: int, /, *, is_command: bool) -> None:
        """Keep them; those of a command as long as the sandbox lives, others while a gateway holds them."""
        ...


def keep_nothing(_tag: str, _child: WaitingChild, _slot: Slot, _kills: int, *, is_command: bool) -> None:
    """Nobody comes later."""


class Resumable(Protocol):
    """What can go on with a child that an earlier gateway had: an execution, or a session."""

    @property
    def is_command(self) -> bool:
        """See ``Running``."""
        ...

    def stand_still(self) -> None:
        """See ``Running``."""
        ...

    def go_on(self) -> None:
        """See ``Running``."""
        ...

    def resume(
        self, child: WaitingChild, age_s: float, kill: Callable[[], None], kills_before: int, *, has_ended: bool
    ) -> None:
        """The child is its own from now on."""
        ...

    def share(self) -> None:
        """See ``Running``."""
        ...

    def end_for_memory(self) -> None:
        """See ``Running``."""
        ...

    def on_exited(self, exited: wire.Exited) -> None:
        """See ``Running``."""
        ...

    def on_lost(self) -> None:
        """See ``Running``."""
        ...


class LeftBehind:
    """One of them. In its slot it stands for the execution, which may end before it is known who wants to know."""

    def __init__(self, facts: Mapping[str, Any], child: WaitingChild) -> None:
        self.tag = str(facts["tag"])
        self.number = child.number
        self._child = child
        self._since = time.monotonic() - float(facts["age_s"])
        self._kills = int(facts["kills"])
        self._exited: wire.Exited | None = None
        self._lost = False
        self._shared = False
        self._takes_too_much = False
        self._execution: Resumable | None = None

    @property
    def age_s(self) -> float:
        """How long ago it was begun."""
        return time.monotonic() - self._since

    @property
    def is_command(self) -> bool:
        """See ``ZygoteExecution``; it is known once somebody takes it up."""
        return self._execution is not None and self._execution.is_command

    def share(self) -> None:
        """See ``ZygoteExecution``."""
        self._shared = True
        if self._execution is not None:
            self._execution.share()

    def end_for_memory(self) -> None:
        """See ``ZygoteExecution``."""
        self._takes_too_much = True
        if self._execution is not None:
            self._execution.end_for_memory()

    def on_exited(self, exited: wire.Exited) -> None:
        """See ``ZygoteExecution``."""
        self._exited = exited
        if self._execution is not None:
            self._execution.on_exited(exited)

    def stand_still(self) -> None:
        """Only who takes it up keeps its time."""
        if self._execution is not None:
            self._execution.stand_still()

    def go_on(self) -> None:
        """See :meth:`stand_still`."""
        if self._execution is not None:
            self._execution.go_on()

    def on_interrupted(self) -> None:
        """See ``SandboxSession``."""
        if isinstance(self._execution, Interruptible):
            self._execution.on_interrupted()

    def on_lost(self) -> None:
        """See ``ZygoteExecution``."""
        self._lost = True
        if self._execution is not None:
            self._execution.on_lost()

    def take_up(self, execution: Resumable, kill: Callable[[], None]) -> None:
        """From now on ``execution`` is told what happens to it; ``kill`` kills it and all that it has started."""
        self._execution = execution
        if self._shared:
            execution.share()
        has_ended = self._exited is not None or self._lost
        execution.resume(self._child, self.age_s, kill, self._kills, has_ended=has_ended)
        if self._takes_too_much:
            execution.end_for_memory()
        if self._exited is not None:
            execution.on_exited(self._exited)
        elif self._lost:
            execution.on_lost()

    def close(self) -> None:
        """Nobody takes it up."""
        if self._execution is None:
            self._child.close()


class LeftSlot:
    """What was left in one slot; ``control`` is None for the first one of a sandbox."""

    def __init__(self, place: int, control: socket.socket | None) -> None:
        self.place = place
        self.control = control
        self.executions: list[LeftBehind] = []

    def close(self) -> None:
        """Let go of all."""
        if self.control is not None:
            self.control.close()
        for left in self.executions:
            left.close()


def read_left(answer: Reply) -> dict[int, LeftSlot]:
    """What an answer to ``adopt`` says was left, by slot; what is the sandbox's own stays in the answer."""
    slots: dict[int, LeftSlot] = {}
    for part, received in zip(answer.parts, answer.received, strict=True):
        if "kept" in part:
            _add(slots, part["kept"], list(received))
            received.clear()
    return slots


def _add(slots: dict[int, LeftSlot], facts: Mapping[str, Any], ends: list[int]) -> None:
    place = int(facts["slot"])
    control = socket.socket(fileno=ends.pop()) if len(ends) > _CHILD_DESCRIPTORS else None
    if place not in slots:
        slots[place] = LeftSlot(place, control)
    elif control is not None:
        control.close()
    try:
        child = open_child(int(facts["child"]), ends)
    except (wire.WireError, OSError):
        for end in ends:
            os.close(end)
        return
    slots[place].executions.append(LeftBehind(facts, child))
