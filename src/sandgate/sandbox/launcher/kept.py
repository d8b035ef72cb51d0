"""Executions that the next gateway can take up, should this one die: the launcher holds copies of their ends."""

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sandgate.sandbox.launcher.allowance import Allowance
from sandgate.sandbox.launcher.log import log
from sandgate.sandbox.launcher.protocol import Keep
from sandgate.sandbox.launcher.reactor import Reactor, Timer
from sandgate_agent import wire

# An execution's socket and its two pipes, and for one that is not in the first slot the control socket of its slot.
_ENDS = (3, 4)
MOST_ENDS = max(_ENDS)
# Of one sandbox.
_MOST_KEPT = 256
# Of those that were killed, whose files the next gateway removes.
_MOST_KILLED = 64
# A launcher that comes back so late stood still itself, and how long it then listens before it judges.
_LATE_S, _HEARING_S = 1.0, 2.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What the next gateway is told of an execution, and its descriptors."""

    keep: Keep
    since: float
    descriptors: Sequence[int]

    def facts(self) -> Mapping[str, Any]:
        """What the next gateway is told."""
        keep = self.keep
        age_s = time.monotonic() - self.since
        return {"tag": keep.tag, "slot": keep.slot, "child": keep.child, "kills": keep.kills, "age_s": age_s}

    def close(self) -> None:
        """Let go of the descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)

    def kill(self, control: int) -> None:
        """Have its forker kill it; ``control`` is of the first slot."""
        if len(self.descriptors) == MOST_ENDS:
            control = self.descriptors[-1]
        # A forker that does not listen ends with its sandbox.
        with suppress(OSError), socket.socket(fileno=os.dup(control)) as channel:
            channel.send(wire.pack_numbered(wire.KILL, self.keep.child), socket.MSG_DONTWAIT)


class KeptExecutions:
    """Those of one sandbox, by their tags."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._kept: dict[str, Kept] = {}
        self._killed: deque[str] = deque(maxlen=_MOST_KILLED)

    def add(self, keep: Keep, descriptors: Sequence[int]) -> bool:
        """Keep one; False when that is not possible, and then the descriptors are still the caller's."""
        if len(descriptors) not in _ENDS or len(self._kept) >= _MOST_KEPT:
            return False
        self.let_go(keep.tag)
        try:
            self._allowance.take(len(descriptors))
        except OSError as error:
            log(f"what runs as {keep.tag} ends with its gateway: {error.strerror}")
            return False
        self._kept[keep.tag] = Kept(keep, time.monotonic(), descriptors)
        return True

    def let_go(self, tag: str) -> None:
        """Nobody will take it up any more. One that is not kept is no error."""
        kept = self._kept.pop(tag, None)
        if kept is not None:
            self._close(kept)

    def _close(self, kept: Kept) -> None:
        kept.close()
        self._allowance.give_back(len(kept.descriptors))

    def answers(self, own: list[int]) -> Iterator[tuple[Mapping[str, Any], list[int]]]:
        """What the next gateway is told, message by message, with descriptors; ``own`` are of the sandbox itself."""
        left = len(self._kept)
        yield {"more": left > 0, "killed": list(self._killed)}, own
        self._killed.clear()
        for kept in self._kept.values():
            left -= 1
            yield {"kept": kept.facts(), "more": left > 0}, list(kept.descriptors)

    def kill(self, control: int) -> Sequence[str]:
        """End those that have to be held, and answer their tags; ``control`` is of the first slot."""
        tags = [tag for tag, kept in self._kept.items() if kept.keep.lifetime_s]
        for tag in tags:
            self._kept[tag].kill(control)
            self.let_go(tag)
            self._killed.append(tag)
        return tags

    def close(self) -> None:
        """Let go of all."""
        for kept in self._kept.values():
            self._close(kept)
        self._kept.clear()


class Patience:
    """Calls back when no gateway has said for so long that it lives."""

    def __init__(self, reactor: Reactor, on_end: Callable[[], None]) -> None:
        self._reactor = reactor
        self._on_end = on_end
        self._until = 0.0
        self._timer: Timer | None = None

    def extend(self, seconds: float) -> None:
        """Wait for so long from now."""
        self._until = time.monotonic() + seconds
        if self._timer is not None and self._timer.moment > self._until:
            self._reactor.cancel(self._timer)
            self._timer = None
        if self._timer is None:
            self._timer = self._reactor.call_at(self._until, self._look)

    def _look(self) -> None:
        timer, self._timer = self._timer, None
        now = time.monotonic()
        if timer is not None and now - timer.moment > _LATE_S:
            # Who stood still hears first what the gateway has said meanwhile.
            self._until = max(self._until, now + _HEARING_S)
        if now < self._until:
            # It was put off meanwhile, which happens too often to move the timer each time.
            self._timer = self._reactor.call_at(self._until, self._look)
        else:
            self._on_end()
