"""What every sandbox has for the launcher, whatever its walls are made of: an owner, a group, an end."""

import errno
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.launcher.cgroup import Group
from sandgate.sandbox.launcher.kept import KeptExecutions
from sandgate.sandbox.launcher.protocol import EXPIRED
from sandgate.sandbox.launcher.reactor import Reactor, Timer

_REMOVE_AGAIN_S = 0.002


class Life:
    """A sandbox's life, from its start to the last trace of it.

    ``on_ready`` and ``on_gone`` are each called once at most. ``environment_id`` is None in a spare one. ``host_id`` is
    the first of its ids, None where it has none.
    """

    isolation: Isolation

    def __init__(
        self,
        template: str,
        reactor: Reactor,
        limits: Limits,
        *,
        environment_id: str | None,
        group: Group | None,
        host_id: int | None,
        folder: Path | None,
        on_ready: "Callable[[Life], None]",
        on_gone: "Callable[[Life], None]",
    ) -> None:
        self.environment_id = environment_id
        self.template = template
        self.group = group
        self.host_id = host_id
        self.limits = limits
        self.ready = False
        self.ending = False
        self.reason = "it ended by itself"
        self.kept = KeptExecutions()
        self._reactor = reactor
        self._folder = folder
        self._on_ready = on_ready
        self._on_gone = on_gone
        self._expiry: Timer | None = None
        self._most_processes = 0

    @property
    def control(self) -> int:
        """The gateway's end of the first slot's socket."""
        raise NotImplementedError

    def take_offer(self) -> list[int]:
        """The ends of a child that waits already, for whoever gets the sandbox; who takes them has to close them."""
        return []

    def start(self) -> None:
        """Begin to make it. Raises ``OSError``, with nothing left behind."""
        raise NotImplementedError

    def add_slot(self, then: Callable[[socket.socket | None], None]) -> None:
        """Make another slot; ``then`` is given the gateway's end of its socket, or None when it cannot be made."""
        raise NotImplementedError

    def become(self, limits: Limits) -> None:
        """Give one that nobody has used yet other limits. Raises ``OSError``; then it is good for nothing."""
        if limits != self.limits:
            raise OSError(errno.ENOTSUP, "its limits cannot be changed")

    def usage(self) -> dict[str, int | None]:
        """What its group uses and has used, None or left out where nothing counts it.

        Raises ``OSError`` when it is about to be gone.
        """
        if self.group is None:
            return {}
        used = self.group.usage()
        # The kernel has not always remembered the most of these.
        self._most_processes = max(self._most_processes, used.processes)
        return {**asdict(used), "peak_processes": used.peak_processes or self._most_processes}

    def on_zygote_end(self, zygote: object) -> None:
        """A zygote is gone, perhaps the one that this was forked from."""

    def _end(self, reason: str) -> None:
        """Kill what there is of it; :meth:`_remove` is called when that is dead."""
        raise NotImplementedError

    def _become_ready(self) -> None:
        if not self.ending:
            self.ready = True
            self._on_ready(self)

    def extend(self, lifetime_s: float) -> None:
        """End it so many seconds from now, unless this is called again."""
        self._forget_expiry()
        self._expiry = self._reactor.call_later(lifetime_s, lambda: self.kill(EXPIRED))

    def _forget_expiry(self) -> None:
        if self._expiry is not None:
            self._reactor.cancel(self._expiry)

    def kill(self, reason: str) -> None:
        """End it. The first reason stands."""
        if self.ending:
            return
        self.ending = True
        self.reason = reason
        self._forget_expiry()
        self.kept.close()
        self._end(reason)

    def _remove(self) -> None:
        """Take away the last traces; again and again until the kernel lets go of them."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        gone = True
        if self.group is not None:
            gone = False
            with suppress(OSError):
                gone = self.group.remove()
        if gone:
            self._on_gone(self)
        else:
            self._reactor.call_later(_REMOVE_AGAIN_S, self._remove)
