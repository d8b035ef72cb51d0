"""What every sandbox has for the launcher, whatever its walls are made of: an owner, a group, an end."""

import errno
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.launcher import inner_sockets
from sandgate.sandbox.launcher.attaching import Namespaces, Wanted
from sandgate.sandbox.launcher.cgroup import Group
from sandgate.sandbox.launcher.errand import Errand
from sandgate.sandbox.launcher.file_work import FileWork
from sandgate.sandbox.launcher.freezing import Freezing
from sandgate.sandbox.launcher.kept import KeptExecutions
from sandgate.sandbox.launcher.protocol import EXPIRED
from sandgate.sandbox.launcher.reactor import Reactor, Timer
from sandgate.sandbox.launcher.removal import remove_tree

OnSlot = Callable[[socket.socket | None, int | None], None]
OnListening = Callable[[socket.socket, int], None]
OnRefusal = Callable[[OSError], None]

# The kernel mostly needs a moment only; what cannot be removed shall not keep the launcher busy.
_REMOVE_AGAIN_S, _LONGEST_REMOVE_AGAIN_S, _LONGER = 0.002, 1.0, 1.25


Begin = Callable[[Reactor, Namespaces, Group], Errand]
"""Starts a process that enters these namespaces, or puts itself into the group. Raises ``OSError``."""


class Life:
    """A sandbox's life, from its start to the last trace of it.

    ``on_ready`` and ``on_gone`` are each called once at most. ``environment_id`` is None in a spare one. ``host_id`` is
    the first of its ids, None where it has none.
    """

    isolation: Isolation
    # Whether connections to its ports are made inside, and say so first; see ``wire``.
    is_carried = False

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
        self.kept = KeptExecutions(reactor.allowance)
        self.freezing = Freezing(reactor, group)
        self.files = FileWork()
        self._reactor = reactor
        self._folder = folder
        self._on_ready = on_ready
        self._on_gone = on_gone
        self._expiry: Timer | None = None
        self._most_processes = 0
        self._remove_again_s = _REMOVE_AGAIN_S
        self._listener: socket.socket | None = None

    @property
    def control(self) -> int:
        """The gateway's end of the first slot's socket."""
        raise NotImplementedError

    def take_offer(self) -> list[int]:
        """The ends of a child that waits already, for whoever gets the sandbox; who takes them has to close them."""
        return []

    def open_counters(self) -> dict[str, int]:
        """What the gateway reads its use from, as far as there is such a thing; who asks has to close them."""
        return {} if self.group is None else self.group.open_counters()

    def start(self) -> None:
        """Begin to make it. Raises ``OSError``, with nothing left behind."""
        raise NotImplementedError

    def add_slot(self, then: OnSlot) -> None:
        """Make another slot; ``then`` is given the gateway's end of its socket, or None when it cannot be made.

        And the counter of its processor time, to be closed, where it is counted apart.
        """
        raise NotImplementedError

    @property
    def part_apart(self) -> str:
        """The part of the group of the slot that is apart; none where there is none."""
        return ""

    def add_slot_apart(self, then: OnSlot) -> None:
        """Make a slot that may go on while the rest stands still. See :meth:`add_slot`."""
        then(None, None)

    def become(self, limits: Limits) -> None:
        """Give one that nobody has used yet other limits. Raises ``OSError``; then it is good for nothing."""
        if limits != self.limits:
            raise OSError(errno.ENOTSUP, "its limits cannot be changed")

    def attach(
        self,
        wanted: Sequence[Wanted],  # noqa: ARG002 - of those that can
        limit_s: float,  # noqa: ARG002
        then: Callable[[str | None], None],  # noqa: ARG002
    ) -> None:
        """Give one that nobody has used yet mounts; see :func:`attaching.attach`. Raises ``OSError``."""
        raise OSError(errno.ENOTSUP, "sandboxes of this class can be given no mounts")

    def enter(self, begin: Begin) -> Errand:  # noqa: ARG002 - of those that can
        """Have a process of its own work at its files; to be noted in :attr:`files`. Raises ``OSError``."""
        raise OSError(errno.ENOTSUP, "sandboxes of this class cannot be entered")

    def open_files(self) -> int | None:
        """The mount namespace in whose root its files are, if they can be shown with other owners; the caller's to
        close. Raises ``OSError``.
        """
        return None

    def open_network(self) -> int:
        """A descriptor of its network namespace. Raises ``OSError``, also where it has none that can be entered."""
        raise OSError(errno.ENOTSUP, "sandboxes of this class have no network that can be entered")

    def listen(
        self,
        then: OnListening,
        refuse: OnRefusal,  # noqa: ARG002 - later
    ) -> None:
        """Have something listen on its loopback, made when there is nothing yet.

        ``then`` is given it, which stays this object's, and its port; ``refuse`` says later why there is none. Raises
        ``OSError`` when there is none at once.
        """
        if self._listener is None:
            self._reactor.allowance.take(1)
            try:
                self._listener = self._in_network(inner_sockets.listen)
            except OSError:
                self._reactor.allowance.give_back(1)
                raise
        then(self._listener, self._listener.getsockname()[1])

    def unlisten(self) -> None:
        """Let go of what listens."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
            self._reactor.allowance.give_back(1)

    def dial(self, port: int, *, is_new: bool) -> socket.socket:
        """See :func:`inner_sockets.dial`."""
        return self._in_network(lambda namespace: inner_sockets.dial(namespace, port, is_new=is_new))

    def _in_network(self, make: Callable[[int], socket.socket]) -> socket.socket:
        namespace = self.open_network()
        try:
            return make(namespace)
        finally:
            os.close(namespace)

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

    def look_inside(self, then: Callable[[Mapping[str, int | None]], None]) -> None:
        """``then`` is given, now or soon, what of its use only those inside can tell."""
        then({})

    def tell_usage(
        self, looks_inside: bool, answer: Callable[[Mapping[str, Any]], None], refuse: Callable[[str], None]
    ) -> None:
        """Answer what it uses, with what only those inside can tell if that is wanted; or why that is not known."""

        def tell(inside: Mapping[str, int | None]) -> None:
            try:
                answer({**self.usage(), **inside})
            except OSError as error:
                refuse(error.strerror or str(error))

        return self.look_inside(tell) if looks_inside else tell({})

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
        self._expiry = self._reactor.call_later(lifetime_s, lambda: self.kill(EXPIRED), self.kill)

    def go_on(self) -> None:
        """Let it go on, where it stands still. Raises ``OSError``."""
        self.files.go_on()
        self.freezing.end()

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
        self.unlisten()
        self.files.end(reason)
        self._end(reason)
        self.freezing.let_die()

    def _remove(self) -> None:
        """Take away the last traces; again and again until the kernel lets go of them."""
        if self._take_away():
            self._on_gone(self)
        else:
            self._reactor.call_later(self._remove_again_s, self._remove)
            self._remove_again_s = min(_LONGER * self._remove_again_s, _LONGEST_REMOVE_AGAIN_S)

    def _take_away(self) -> bool:
        """Whether there is no trace of it any more."""
        if self._folder is not None and not remove_tree(self._folder):
            return False
        if self.group is None:
            return True
        with suppress(OSError):
            return self.group.remove()
        return False
