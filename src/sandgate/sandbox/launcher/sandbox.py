"""One sandbox of the standard or the process class, as the launcher sees it: its slots, forked from a zygote."""

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.launcher import disk
from sandgate.sandbox.launcher.cgroup import Group, GroupLimits
from sandgate.sandbox.launcher.life import Life
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.slot import Slot
from sandgate.sandbox.launcher.zygote import Zygote

_LOCKED_BYTES = 65_536
# What a slot joins, the user namespace first: it brings the power to enter the rest.
_JOINED = ("user", "mnt", "net", "ipc", "uts", "cgroup")


def _group_limits(limits: Limits) -> GroupLimits:
    # One process for the forker of each slot comes on top of the user's own.
    processes = limits.processes + limits.concurrent_executions
    return GroupLimits(limits.memory_bytes + limits.disk_bytes, limits.cpu_millis, processes)


def can_become(made: Limits, asked: Limits) -> bool:
    """Whether a sandbox with control groups can be given other limits: those that its mounts and groups hold."""
    held_outside = {"memory_bytes": 0, "cpu_millis": 0, "processes": 0, "disk_bytes": 0}
    return replace(made, **held_outside) == replace(asked, **held_outside)


class Sandbox(Life):
    """The first slot holds the environment: when it dies, the sandbox has ended."""

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
        on_ready: Callable[[Life], None],
        on_gone: Callable[[Life], None],
    ) -> None:
        super().__init__(
            zygote.template.name, reactor, limits,
            environment_id=environment_id, group=group, host_id=host_id, folder=folder,
            on_ready=on_ready, on_gone=on_gone,
        )  # fmt: skip
        self.isolation = Isolation.PROCESS if group is None else Isolation.STANDARD
        self._zygote = zygote
        self._slots: list[Slot] = []
        self._added: dict[Slot, Callable[[socket.socket | None], None]] = {}
        self._first_dead = False
        self._most_disk_bytes = 0

    @property
    def control(self) -> int:
        """See :class:`Life`."""
        return self._slots[0].control.fileno()

    def start(self) -> None:
        """Make the control group and ask the zygote for the first forker. See :class:`Life`."""
        if self.group is not None:
            self.group.make(_group_limits(self.limits))
        if self._folder is not None:
            for part in ("workspace", "home", "tmp"):
                (self._folder / part).mkdir(parents=True)
        self._start_slot([])

    def become(self, limits: Limits) -> None:
        """See :class:`Life`."""
        if limits == self.limits:
            return
        if self.group is not None:
            self.group.change(_group_limits(limits))
        if limits.disk_bytes != self.limits.disk_bytes:
            root = self._slots[0].open_root()
            try:
                disk.resize(root, limits.disk_bytes)
            finally:
                os.close(root)
        self.limits = limits

    def usage(self) -> dict[str, int | None]:
        """See :class:`Life`; with the disk, and without the forkers, which are the service's own."""
        used = super().usage()
        if not used:
            return used
        root = self._slots[0].open_root()
        try:
            taken = disk.usage(root)
        finally:
            os.close(root)
        # The kernel does not remember the most of it.
        self._most_disk_bytes = max(self._most_disk_bytes, taken.used_bytes)
        for name in ("processes", "peak_processes"):
            used[name] = max(0, (used[name] or 0) - len(self._slots))
        disk_used = {"disk_bytes": taken.used_bytes, "peak_disk_bytes": self._most_disk_bytes}
        return {**used, **disk_used, "inodes": taken.used_inodes}

    def add_slot(self, then: Callable[[socket.socket | None], None]) -> None:
        """See :class:`Life`."""
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
            self._zygote, self._reactor,
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
            # At 0 a program of the host's root that handles core dumps is run all the same. Source: core(5).
            "core": 1,
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
            then(slot.control)
        elif slot is self._slots[0]:
            self._become_ready()

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

    def _end(self, reason: str) -> None:
        for slot in list(self._slots):
            slot.kill(reason)

    def on_zygote_end(self, zygote: object) -> None:
        """See :class:`Life`: every forker is gone with it."""
        if zygote is self._zygote:
            for slot in list(self._slots):
                slot.on_zygote_end()
