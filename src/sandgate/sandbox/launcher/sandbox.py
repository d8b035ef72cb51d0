"""One sandbox of the standard or the process class, as the launcher sees it: its slots, forked from a zygote."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.launcher import disk, jail
from sandgate.sandbox.launcher.attaching import Wanted, attach
from sandgate.sandbox.launcher.cgroup import Group, GroupLimits
from sandgate.sandbox.launcher.disks import Disks
from sandgate.sandbox.launcher.errand import Errand
from sandgate.sandbox.launcher.life import Begin, Life, OnSlot
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.slot import Slot
from sandgate.sandbox.launcher.zygote import Zygote

_LOCKED_BYTES = 65_536
# What a slot joins, the user namespace first: it brings the power to enter the rest.
_JOINED = ("user", "mnt", "net", "ipc", "uts")


def _group_limits(limits: Limits, *, on_disk: bool) -> GroupLimits:
    # One process for the forker of each slot comes on top of the user's own.
    processes = limits.processes + limits.concurrent_executions
    memory_bytes = limits.memory_bytes if on_disk else limits.machine_bytes
    return GroupLimits(memory_bytes, limits.cpu_millis, processes)


def can_become(made: Limits, asked: Limits) -> bool:
    """Whether a sandbox with control groups can be given other limits: those that its mounts and groups hold."""
    held_outside = {"memory_bytes": 0, "cpu_millis": 0, "processes": 0, "disk_bytes": 0}
    return replace(made, **held_outside) == replace(asked, **held_outside)


def can_become_on_disk(made: Limits, asked: Limits) -> bool:
    """The same where files are in an image, whose size stays as it was made."""
    return made.disk_bytes == asked.disk_bytes and can_become(made, asked)


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
        disks: Disks | None,
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
        # Where its files are on the disk; None: in memory.
        self._disks = disks
        self._slots: list[Slot] = []
        self._added: dict[Slot, OnSlot] = {}
        # Of the group, for slots but the first: how many there were, and those that the kernel has not let go of.
        self._parts = 0
        self._stale: set[str] = set()
        self._apart: Slot | None = None
        self._first_dead = False
        self._most_disk_bytes = 0

    @property
    def control(self) -> int:
        """See :class:`Life`."""
        return self._slots[0].control.fileno()

    def start(self) -> None:
        """Make the control group and ask the zygote for the first forker. See :class:`Life`."""
        try:
            if self.group is not None:
                self.group.make(_group_limits(self.limits, on_disk=self._disks is not None))
            if self._folder is not None:
                for part in ("workspace", "home", "tmp"):
                    (self._folder / part).mkdir(parents=True)
            self._start_slot([])
        except OSError:
            self._take_away()
            raise

    def become(self, limits: Limits) -> None:
        """See :class:`Life`."""
        if limits == self.limits:
            return
        if self.group is not None:
            self.group.change(_group_limits(limits, on_disk=self._disks is not None))
        if limits.disk_bytes != self.limits.disk_bytes:
            root = self._slots[0].open_root()
            try:
                disk.resize(root, limits.disk_bytes)
            finally:
                os.close(root)
        self.limits = limits

    def open_counters(self) -> dict[str, int]:
        """See :class:`Life`; with the kernel's kills, which are all that there are."""
        kills = None if self.group is None else self.group.open_kills()
        return super().open_counters() | ({} if kills is None else {"kills": kills})

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

    def attach(self, wanted: Sequence[Wanted], limit_s: float, then: Callable[[str | None], None]) -> None:
        """See :class:`Life`."""
        if self.group is None:
            super().attach(wanted, limit_s, then)
        namespaces = self._slots[0].open_namespaces()
        try:
            attach(self._reactor, namespaces, wanted, limit_s, then)
        finally:
            namespaces.close()

    def enter(self, begin: Begin) -> Errand:
        """See :class:`Life`."""
        if self.group is None:
            return super().enter(begin)
        namespaces = self._slots[0].open_namespaces()
        try:
            return begin(self._reactor, namespaces, self.group)
        finally:
            namespaces.close()

    def open_files(self) -> int | None:
        """See :class:`Life`. Files on a disk are shown with other owners already, and cannot be so twice."""
        if self.group is None or self._disks is not None:
            return None
        namespaces = self._slots[0].open_namespaces()
        os.close(namespaces.user)
        return namespaces.mount

    def open_network(self) -> int:
        """See :class:`Life`."""
        if self.group is None:
            return super().open_network()
        return self._slots[0].open_network()

    @property
    def part_apart(self) -> str:
        """See :class:`Life`."""
        return "" if self._apart is None else self._apart.part

    def add_slot_apart(self, then: OnSlot) -> None:
        """See :class:`Life`."""
        if self.group is None:
            then(None, None)
            return
        if self._apart is not None:
            # Whoever had it has let go of it, and its end has not been seen yet.
            self._apart.kill("another slot is apart now")
        before = len(self._slots)
        self.add_slot(then)
        self._apart = self._slots[before] if len(self._slots) > before else None

    def add_slot(self, then: OnSlot) -> None:
        """See :class:`Life`."""
        namespaces: list[int] = []
        part = ""
        try:
            if self.group is not None:
                part = self._make_part(self.group)
                pid = self._slots[0].pid
                for name in _JOINED:
                    descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
                    namespaces.append(descriptor)
            slot = self._start_slot(namespaces, part)
        except OSError:
            for descriptor in namespaces:
                os.close(descriptor)
            self._remove_part(part)
            then(None, None)
            return
        self._added[slot] = then

    def _make_part(self, group: Group) -> str:
        """Raises ``OSError``."""
        self._parts += 1
        part = str(self._parts)
        group.make_part(part)
        return part

    def _remove_part(self, part: str) -> None:
        """Remove it, and what is left of others; what the kernel holds on to goes the next time, or at the end."""
        if part:
            self._stale.add(part)
        if self.group is not None:
            with suppress(OSError):
                self._stale = {each for each in self._stale if not self.group.remove_part(each)}

    def _start_slot(self, namespaces: list[int], part: str = "") -> Slot:
        slot = Slot(
            self._zygote, self._reactor,
            group=self.group, host_id=self.host_id, maps_ids=not namespaces, part=part,
            root=None if namespaces else self._find_root(),
            on_ready=self._on_slot_ready, on_dead=self._on_slot_dead,
        )  # fmt: skip
        slot.start(self._request(joins=bool(namespaces)), namespaces)
        self._slots.append(slot)
        return slot

    def _find_root(self) -> Wanted | None:
        """What its files are to be on; None where they are in memory, or in a folder."""
        if self._disks is None:
            return None
        return Wanted(jail.ROOT, False, partial(self._disks.mount, self.limits.disk_bytes, self.limits.inodes))

    def _request(self, *, joins: bool) -> dict[str, object]:
        """What the forker needs to know."""
        limits = self.limits
        # Without mounts of its own nothing else keeps a single file below the size of the disk.
        file_size = min(limits.file_size_bytes, limits.disk_bytes) if self.group is None else limits.file_size_bytes
        return {
            "joins": joins,
            # None: its root is given to it.
            "disk_bytes": None if self._disks is not None else limits.disk_bytes,
            "inodes": limits.inodes,
            # At 0 a program of the host's root that handles core dumps is run all the same. Source: core(5).
            "core": 1,
            "file_size": file_size,
            "open_files": limits.open_files,
            "locked": _LOCKED_BYTES,
            # Without a control group a process can at least be kept from taking the whole machine's memory.
            "address_space": None if self.group is not None else 16 * limits.memory_bytes,
            "folder": str(self._folder) if self._folder else None,
        }

    def _on_slot_ready(self, slot: Slot) -> None:
        then = self._added.pop(slot, None)
        if then is not None and self.freezing.is_on:
            # It was asked for before the rest began to stand still, and was not there to do so, too.
            then(None, None)
            slot.kill("its sandbox is paused")
        elif then is not None:
            then(slot.control, None if self.group is None else self.group.open_time(slot.part))
            slot.let_go()
        elif slot is self._slots[0]:
            self._become_ready()

    def _on_slot_dead(self, slot: Slot) -> None:
        then = self._added.pop(slot, None)
        if then is not None:
            then(None, None)
        self._remove_part(slot.part)
        if slot is self._apart:
            self._apart = None
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
