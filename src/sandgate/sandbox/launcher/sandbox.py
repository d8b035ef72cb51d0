"""One sandbox, as the launcher sees it: its slots, from the first clone to the last trace of it."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sandgate.core.limits import Limits
from sandgate.sandbox.launcher.cgroup import Group, GroupLimits
from sandgate.sandbox.launcher.kept import KeptExecutions
from sandgate.sandbox.launcher.protocol import EXPIRED
from sandgate.sandbox.launcher.reactor import Reactor, Timer
from sandgate.sandbox.launcher.slot import Slot
from sandgate.sandbox.launcher.zygote import Zygote

_REMOVE_AGAIN_S = 0.002
_LOCKED_BYTES = 65_536
# What a slot joins, the user namespace first: it brings the power to enter the rest.
_JOINED = ("user", "mnt", "net", "ipc", "uts", "cgroup")


class Sandbox:
    """The first slot holds the environment: when it dies, the sandbox has ended.

    ``on_ready`` and ``on_gone`` are each called once at most. ``environment_id`` is None in a spare one.
    """

    def __init__(
        self,
        zygote: Zygote,
        reactor: Reactor,
        limits: Limits,
        *,
        environment_id: str | None,
        group: Group | None,
        host_id: int | None,
        folder: Path | None,
        on_ready: Callable[["Sandbox"], None],
        on_gone: Callable[["Sandbox"], None],
    ) -> None:
        self.environment_id = environment_id
        self.zygote = zygote
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
        self._slots: list[Slot] = []
        self._added: dict[Slot, Callable[[Slot | None], None]] = {}
        self._expiry: Timer | None = None
        self._first_dead = False

    @property
    def control(self) -> int:
        """The gateway's end of the first slot's socket."""
        return self._slots[0].control.fileno()

    def start(self) -> None:
        """Make the control group and ask the zygote for the first forker. Raises ``OSError``, nothing left behind."""
        if self.group is not None:
            # One process for the forker of each slot comes on top of the user's own.
            processes = self.limits.processes + self.limits.concurrent_executions
            memory = self.limits.memory_bytes + self.limits.disk_bytes
            self.group.make(GroupLimits(memory, self.limits.cpu_millis, processes))
        if self._folder is not None:
            for part in ("workspace", "home", "tmp"):
                (self._folder / part).mkdir(parents=True)
        self._start_slot([])

    def add_slot(self, then: Callable[[Slot | None], None]) -> None:
        """Make another slot; ``then`` is called with it when it is ready, with None when it cannot be made."""
        namespaces: list[int] = []
        try:
            if self.group is not None:
                pid = self._slots[0].pid
                for name in _JOINED:
                    descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
                    namespaces.append(descriptor)
            slot = self._start_slot(namespaces)
        except OSError:
            for descriptor in namespaces:
                os.close(descriptor)
            then(None)
            return
        self._added[slot] = then

    def _start_slot(self, namespaces: list[int]) -> Slot:
        slot = Slot(
            self.zygote, self._reactor,
            group=self.group, host_id=self.host_id, maps_ids=not namespaces,
            on_ready=self._on_slot_ready, on_dead=self._on_slot_dead,
        )  # fmt: skip
        slot.start(self._request(joins=bool(namespaces)), namespaces)
        self._slots.append(slot)
        return slot

    def _request(self, *, joins: bool) -> dict[str, object]:
        """What the forker needs to know."""
        return {
            "joins": joins,
            "disk_bytes": self.limits.disk_bytes,
            "inodes": self.limits.inodes,
            "core": 0,
            "file_size": self.limits.file_size_bytes,
            "open_files": self.limits.open_files,
            "locked": _LOCKED_BYTES,
            # Without a control group a process can at least be kept from taking the whole machine's memory.
            "address_space": None if self.group is not None else 16 * self.limits.memory_bytes,
            "folder": str(self._folder) if self._folder else None,
        }

    def _on_slot_ready(self, slot: Slot) -> None:
        then = self._added.pop(slot, None)
        if then is not None:
            then(slot)
        elif slot is self._slots[0] and not self.ending:
            self.ready = True
            self._on_ready(self)

    def _on_slot_dead(self, slot: Slot) -> None:
        then = self._added.pop(slot, None)
        if then is not None:
            then(None)
        first = slot is self._slots[0]
        if first and not self.ending:
            self.kill(slot.reason)
        if len(self._slots) > 1 and not first:
            self._slots.remove(slot)
        elif first:
            self._first_dead = True
        if self._first_dead and len(self._slots) == 1:
            self._remove()

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
        for slot in list(self._slots):
            slot.kill(reason)

    def on_zygote_end(self) -> None:
        """The zygote is gone, and every forker with it."""
        for slot in list(self._slots):
            slot.on_zygote_end()

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
