"""Executions that an earlier gateway began in a sandbox, until somebody takes them up or lets go of them."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from sandgate.sandbox.execution import WaitingChild, ZygoteExecution
from sandgate.sandbox.launcher.client import Answer
from sandgate.sandbox.slot import open_child
from sandgate_agent import wire

# An execution's socket and its two pipes; what comes beyond is the control socket of its slot.
_CHILD_DESCRIPTORS = 3


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
        self._execution: ZygoteExecution | None = None

    @property
    def age_s(self) -> float:
        """How long ago it was begun."""
        return time.monotonic() - self._since

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

    def on_lost(self) -> None:
        """See ``ZygoteExecution``."""
        self._lost = True
        if self._execution is not None:
            self._execution.on_lost()

    def take_up(self, execution: ZygoteExecution, kill: Callable[[], None]) -> None:
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


def read_left(answer: Answer) -> dict[int, LeftSlot]:
    """What an answer to ``adopt`` says was left, by slot; its first descriptor stays in the answer."""
    descriptors = answer.descriptors[1:]
    del answer.descriptors[1:]
    slots: dict[int, LeftSlot] = {}
    for part in answer.parts:
        if "kept" not in part:
            continue
        ends, descriptors = descriptors[: part["ends"]], descriptors[part["ends"] :]
        _add(slots, part["kept"], ends)
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
    except wire.WireError:
        for end in ends:
            os.close(end)
        return
    slots[place].executions.append(LeftBehind(facts, child))
