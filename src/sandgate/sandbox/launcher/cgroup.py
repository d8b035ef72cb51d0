"""Control groups of sandboxes, on version 1, version 2, and the hybrid of both.

A *tree* is the folder of this server in each hierarchy that matters; a *group* is one folder in each of them. On a
hybrid machine the controllers are used where they are, so that a group may live in both versions at once.
"""

import ctypes
import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandgate.core.errors import MechanismFault
from sandgate.sandbox.launcher import counting, entering
from sandgate.sandbox.launcher.counting import GroupUsage, read
from sandgate.sandbox.launcher.freezer import Freezer, FreezerPlace
from sandgate.sandbox.launcher.hierarchies import ACCOUNTING, Hierarchy, folders_in, remove_folder, write_file

# A sandbox that has used up its share waits for the rest of the period; a short one keeps kills and answers quick.
CPU_PERIOD_US = 10_000
_MOST_ATTEMPTS = 5
_IN_MODIFY = 2
# Of a group, and of parts of it.
_PROCESSES = ("cgroup.procs", "*/cgroup.procs")
_TCP_LIMIT = "memory.kmem.tcp.limit_in_bytes"
_SOCKET_SHARE = 8
_MOST_PERCENT_OF_MEMORY = 90
_LEAST_SOCKET_BYTES = 16 * 1024 * 1024
_TCP_MEMORY = Path("/proc/sys/net/ipv4/tcp_mem")


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """What a group may use; None leaves it unlimited."""

    memory_bytes: int | None
    cpu_millis: int | None
    processes: int | None


def _is_taken(path: Path, value: str) -> bool:
    """Write a limit; False when it does not fit the others yet. Raises ``OSError``."""
    try:
        _write_if_there(path, value)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def _write_if_there(path: Path | str, value: str) -> None:
    try:
        write_file(path, value)
    except FileNotFoundError:
        return


def _settings(version: int, controller: str, limits: GroupLimits) -> Mapping[str, str]:
    """Files of a group and what to write to each, in order."""
    memory, millis, processes = limits.memory_bytes, limits.cpu_millis, limits.processes
    if controller == ACCOUNTING:
        return {}
    if controller == "pids":
        return {"pids.max": "max" if processes is None else str(processes)}
    if controller == "cpu":
        return _share(version, millis)
    if memory is None:
        return {}
    if version == 2:
        return {"memory.max": str(memory), "memory.swap.max": "0"}
    return {
        "memory.limit_in_bytes": str(memory),
        # There only where swap is accounted; must not be below the first.
        "memory.memsw.limit_in_bytes": str(memory),
        # Version 1 counts what waits in sockets of IP apart, and only where there is a limit; without one, a few
        # environments take all that the whole machine may use of it, and the gateway's connections stand still.
        _TCP_LIMIT: str(max(_LEAST_SOCKET_BYTES, memory // _SOCKET_SHARE)),
    }


def _share(version: int, millis: int | None) -> Mapping[str, str]:
    """The share of the processor; what one period leaves may be used in the next one, as far as the kernel knows that.

    Without it a single thread loses some 5 % of a whole core: the kernel gives quota out in slices of half a short
    period, and what of a slice is left at the period's end is lost. Source: sched-bwc, "Burst feature", Linux 5.14.
    """
    quota = None if millis is None else str(max(1000, millis * CPU_PERIOD_US // 1000))
    if version == 2:
        share = {"cpu.max": f"{quota or 'max'} {CPU_PERIOD_US}"}
    else:
        share = {"cpu.cfs_period_us": str(CPU_PERIOD_US), "cpu.cfs_quota_us": quota or "-1"}
    if quota is not None:
        share["cpu.max.burst" if version == 2 else "cpu.cfs_burst_us"] = quota
    return share


class Group:
    """One folder in each hierarchy, and perhaps one where it is frozen. ``freezer`` is where, under which name."""

    def __init__(
        self, hierarchies: Sequence[tuple[Hierarchy, Path]], freezer: tuple[Freezer, str] | None = None
    ) -> None:
        self._places = tuple(hierarchies)
        self.frost = (
            None
            if freezer is None
            else freezer[0].frost(freezer[1], self.pids, [folder for _hierarchy, folder in self._places])
        )

    def make(self, limits: GroupLimits) -> None:
        """Make the folders and set the limits. Raises ``OSError`` with nothing left behind."""
        try:
            for hierarchy, folder in self._places:
                folder.mkdir(exist_ok=True)
                for controller in hierarchy.controllers:
                    for name, value in _settings(hierarchy.version, controller, limits).items():
                        # A text costs a tenth of a path, and a dozen of them are needed for each sandbox.
                        _write_if_there(f"{folder}/{name}", value)
        except OSError:
            self.remove()
            raise

    def attach(self, pid: int, part: str = "") -> None:
        """Move a process into the group, or into a part of it."""
        for _hierarchy, folder in self._folders(part):
            write_file(f"{folder}/cgroup.procs", str(pid))

    def _folders(self, part: str) -> list[tuple[Hierarchy, str]]:
        """Where processes are that are in the group, or in a part of it."""
        return [
            (hierarchy, f"{folder}/{part}" if part and counting.counts_time(hierarchy) else str(folder))
            for hierarchy, folder in self._places
        ]

    def open_entries(self, part: str = "") -> list[int]:
        """See :func:`entering.open_entries`; for the group, or a part of it."""
        return entering.open_entries(self._folders(part))

    def has_entered(self, pid: int, part: str = "") -> bool:
        """See :func:`entering.has_entered`."""
        return entering.has_entered(self._folders(part), pid)

    def enter(self) -> None:
        """Move the calling process, which has one thread, into the group.

        On version 1 as a thread: for a whole process the kernel keeps all others of the machine from forking, and waits
        several milliseconds until none does. Source: cgroup_procs_write_start() in kernel/cgroup/cgroup.c.
        """
        for hierarchy, folder in self._places:
            write_file(folder / ("tasks" if hierarchy.version == 1 else "cgroup.procs"), "0")

    def watch_memory(self, threshold_bytes: int) -> int | None:
        """A descriptor that can be read when the group's memory has crossed a threshold; what is in it says nothing.

        None where the kernel has none to give: then :meth:`usage` has to be looked at. On version 2 the kernel slows
        down what goes beyond it. Source: cgroup-v1/memory, "Memory thresholds"; cgroup-v2, ``memory.high`` and
        ``memory.events``.
        """
        for hierarchy, folder in self._places:
            if "memory" not in hierarchy.controllers:
                continue
            if hierarchy.version == 2:
                _write_if_there(folder / "memory.high", str(threshold_bytes))
                return watch_changes(folder / "memory.events")
            return _watch_threshold(folder, threshold_bytes)
        return None

    def pids(self, part: str = "") -> set[int]:
        """Every process in the group now, or in a part of it."""
        names = (f"{part}/cgroup.procs",) if part else _PROCESSES
        files = (file for _h, folder in self._places for name in names for file in folder.glob(name))
        return {int(pid) for file in files for pid in read(file).split()}

    def usage(self) -> GroupUsage:
        """What the group uses now; zeros where nothing can be read."""
        return counting.count(self._places)

    def count_file_cache(self) -> int:
        """See :func:`counting.count_file_cache`."""
        return counting.count_file_cache(self._places)

    def open_counters(self) -> dict[str, int]:
        """Its processor ``time``, and the ``peak`` of its memory, as far as the kernel counts them; to be read."""
        time = counting.open_time(self._places)
        # The second is of no use without the first.
        found = {"time": time, "peak": None if time is None else counting.open_peak(self._places)}
        return {name: each for name, each in found.items() if each is not None}

    def open_kills(self) -> int | None:
        """See :func:`counting.open_kills`."""
        return counting.open_kills(self._places)

    def make_part(self, name: str) -> None:
        """Count the time of some of its processes apart; its limits are for all. Raises ``OSError``."""
        for hierarchy, folder in self._places:
            if counting.counts_time(hierarchy):
                (folder / name).mkdir()

    def open_time(self, part: str) -> int | None:
        """The processor time of a part, to be read."""
        return counting.open_time(self._places, part)

    def remove_part(self, name: str) -> bool:
        """Remove a part; False when the kernel has not let go of it yet. Its time stays the group's."""
        return all(remove_folder(folder / name) for _hierarchy, folder in self._places)

    def change(self, limits: GroupLimits) -> None:
        """Set other limits of a group that is there. Raises ``OSError``; then some are set and some are not."""
        for hierarchy, folder in self._places:
            for controller in hierarchy.controllers:
                waiting = dict(_settings(hierarchy.version, controller, limits))
                # Of two that bound each other, a rise begins with one and a fall with the other.
                while waiting:
                    left = {name: value for name, value in waiting.items() if not _is_taken(folder / name, value)}
                    if len(left) == len(waiting):
                        raise OSError(errno.EINVAL, f"no limit of {', '.join(left)} is taken")
                    waiting = left

    def remove(self) -> bool:
        """Remove the folders; False when the kernel has not let go of one yet: ask again."""
        gone = self.frost is None or self.frost.remove()
        for _hierarchy, folder in self._places:
            if not remove_folder(folder):
                gone = False
                # Perhaps because of parts.
                for part in folders_in(folder):
                    remove_folder(part)
        return gone


def watch_changes(file: Path) -> int | None:
    """A descriptor that can be read when the kernel has told of a change of a file; None where it tells of none.

    Source: inotify(7); include/uapi/linux/inotify.h.
    """
    library = ctypes.CDLL(None)
    descriptor: int = library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        return None
    if library.inotify_add_watch(descriptor, os.fsencode(file), _IN_MODIFY) < 0:
        os.close(descriptor)
        return None
    return descriptor


def _watch_threshold(folder: Path, threshold_bytes: int) -> int | None:
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        with open(folder / "memory.usage_in_bytes") as usage:
            write_file(folder / "cgroup.event_control", f"{event} {usage.fileno()} {threshold_bytes}")
    except OSError:
        os.close(event)
        return None
    return event


class Tree:
    """This server's folder in each hierarchy."""

    def __init__(self, hierarchies: Sequence[Hierarchy], name: str, freezers: Sequence[FreezerPlace] = ()) -> None:
        self._roots = tuple((hierarchy, hierarchy.mount / name) for hierarchy in hierarchies)
        self.freezer = Freezer(freezers, name)

    def make(self) -> None:
        """Make the folders and hand the controllers down. Raises ``MechanismFault``."""
        for hierarchy, folder in self._roots:
            try:
                if hierarchy.version == 2:
                    _hand_down(hierarchy, hierarchy.mount)
                folder.mkdir(exist_ok=True)
                if hierarchy.version == 2:
                    _hand_down(hierarchy, folder)
                elif "memory" in hierarchy.controllers:
                    _bound_sockets(folder)
                _bound_all(hierarchy, folder)
            except OSError as error:
                raise MechanismFault(f"cannot make the control group {folder}: {error.strerror}") from error
        self.freezer.make()

    def group(self, name: str) -> Group:
        """The group of this name, made or not."""
        return Group([(hierarchy, folder / name) for hierarchy, folder in self._roots], (self.freezer, name))

    def names(self) -> set[str]:
        """The groups that there are, of this start of the launcher or of one before."""
        return {child.name for _h, folder in self._roots for child in folders_in(folder)} | self.freezer.names()

    def remove(self) -> bool:
        """Remove the folders, which must hold no groups any more."""
        return self.freezer.remove() & Group(self._roots).remove()


def _bound_sockets(folder: Path) -> None:
    """Leave half of what the machine may use for sockets of IP, before they are slowed down, to others than sandboxes.

    A limit that stays also keeps the kernel from patching its code each time that the first group is made.
    Source: ip-sysctl, "tcp_mem", three numbers of pages.
    """
    pages = read(_TCP_MEMORY).split()
    if len(pages) == 3:
        _write_if_there(folder / _TCP_LIMIT, str(int(pages[1]) // 2 * os.sysconf("SC_PAGE_SIZE")))


def _bound_all(hierarchy: Hierarchy, folder: Path) -> None:
    """Leave the machine a part of its memory and of its numbers of processes, whatever all sandboxes do together.

    Each has limits of its own, but there may be more of them than the machine can hold at their limits.
    """
    if "memory" in hierarchy.controllers:
        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * _MOST_PERCENT_OF_MEMORY // 100
        _write_if_there(folder / ("memory.max" if hierarchy.version == 2 else "memory.limit_in_bytes"), str(most))
    numbers = [read(Path("/proc/sys/kernel", name)).strip() for name in ("pid_max", "threads-max")]
    if "pids" in hierarchy.controllers and all(numbers):
        _write_if_there(folder / "pids.max", str(min(map(int, numbers)) // 2))


def _hand_down(hierarchy: Hierarchy, folder: Path) -> None:
    """Let the groups below a folder of version 2 use the controllers."""
    control = folder / "cgroup.subtree_control"
    lacking = hierarchy.controllers - set(read(control).split())
    if not lacking:
        return
    wanted = " ".join(f"+{name}" for name in sorted(lacking))
    for attempts_left in reversed(range(_MOST_ATTEMPTS)):
        try:
            write_file(control, wanted)
        except OSError as error:
            # In a container the root of the hierarchy holds processes, and such a folder hands nothing down. What they
            # start while they are moved is in the folder again.
            if error.errno != errno.EBUSY or not attempts_left:
                raise
            _empty_into_leaf(folder)
        else:
            return


def _empty_into_leaf(folder: Path) -> None:
    """Move the processes of a folder into one below it. Source: cgroup-v2, "No Internal Process Constraint"."""
    leaf = folder / "sandgate-rest"
    leaf.mkdir(exist_ok=True)
    for pid in read(folder / "cgroup.procs").split():
        try:
            write_file(leaf / "cgroup.procs", pid)
        except ProcessLookupError:
            continue
