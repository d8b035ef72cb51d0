"""Control groups of sandboxes, on version 1, version 2, and the hybrid of both.

A *tree* is the folder of this server in each hierarchy that matters; a *group* is one folder in each of them. On a
hybrid machine the controllers are used where they are, so that a group may live in both versions at once.
"""

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandgate.core.errors import MechanismFault

CONTROLLERS = ("memory", "cpu", "pids")
# Counts processor time on version 1, where it may be mounted elsewhere, or not at all; version 2 counts by itself.
_ACCOUNTING = "cpuacct"
# A sandbox that has used up its share waits for the rest of the period; a short one keeps kills and answers quick.
CPU_PERIOD_US = 10_000
_MOST_ATTEMPTS = 5
_TCP_LIMIT = "memory.kmem.tcp.limit_in_bytes"
_SOCKET_SHARE = 8
_LEAST_SOCKET_BYTES = 16 * 1024 * 1024
_TCP_MEMORY = Path("/proc/sys/net/ipv4/tcp_mem")


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """What a group may use; None leaves it unlimited."""

    memory_bytes: int | None
    cpu_millis: int | None
    processes: int | None


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """What a group uses and has used, and how often the kernel had to kill in it.

    None is what this kernel does not count.
    """

    memory_bytes: int
    peak_memory_bytes: int
    processes: int
    peak_processes: int | None
    cpu_us: int | None
    out_of_memory_kills: int


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where some controllers are mounted."""

    version: int
    mount: Path
    controllers: frozenset[str]


def _unescape(path: str) -> str:
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def find_hierarchies(mountinfo: str) -> list[Hierarchy]:
    """The hierarchies that hold ``CONTROLLERS``, from the text of ``/proc/self/mountinfo``.

    Source: proc_pid_mountinfo(5). Raises ``MechanismFault`` that names the controllers that are nowhere.
    """
    found: list[Hierarchy] = []
    missing = {*CONTROLLERS, _ACCOUNTING}
    unified: list[Path] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _source, options = [*right.split(" "), "", "", ""][:3]
        mount = Path(_unescape(left.split(" ")[4])) if left.count(" ") >= 4 else Path()
        if kind == "cgroup":
            here = frozenset(options.split(",")) & missing
            if here:
                found.append(Hierarchy(1, mount, here))
                missing -= here
        elif kind == "cgroup2":
            unified.append(mount)
    for mount in unified:
        controllers = _read(mount / "cgroup.controllers").split()
        here = frozenset(controllers) & missing
        if here:
            found.append(Hierarchy(2, mount, here))
            missing -= here
    missing.discard(_ACCOUNTING)
    if missing:
        raise MechanismFault(
            f"no control group hierarchy holds {', '.join(sorted(missing))}; mount them, "
            "or give the container its own writable control groups"
        )
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _read_number(path: Path) -> int:
    text = _read(path).strip()
    return int(text) if text.isdigit() else 0


def _read_field(path: Path, field: str) -> int:
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == field and value.strip().isdigit():
            return int(value)
    return 0


def _find_number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _memory_usage(version: int, folder: Path) -> tuple[int, int, int]:
    """Bytes now and at most, and the kernel's kills."""
    if version == 2:
        kills = _read_field(folder / "memory.events", "oom_kill")
        return _read_number(folder / "memory.current"), _read_number(folder / "memory.peak"), kills
    kills = _read_field(folder / "memory.oom_control", "oom_kill")
    peak = _read_number(folder / "memory.max_usage_in_bytes")
    return _read_number(folder / "memory.usage_in_bytes"), peak, kills


def _is_taken(path: Path, value: str) -> bool:
    """Write a limit; False when it does not fit the others yet. Raises ``OSError``."""
    try:
        _write_if_there(path, value)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def _write(path: Path, value: str) -> None:
    # One write call: the kernel takes a file of a control group in one piece.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _write_if_there(path: Path, value: str) -> None:
    try:
        _write(path, value)
    except FileNotFoundError:
        return


def _settings(version: int, controller: str, limits: GroupLimits) -> Mapping[str, str]:
    """Files of a group and what to write to each, in order."""
    memory, millis, processes = limits.memory_bytes, limits.cpu_millis, limits.processes
    if controller == _ACCOUNTING:
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
    """One folder in each hierarchy."""

    def __init__(self, hierarchies: Sequence[tuple[Hierarchy, Path]]) -> None:
        self._places = tuple(hierarchies)

    def make(self, limits: GroupLimits) -> None:
        """Make the folders and set the limits. Raises ``OSError`` with nothing left behind."""
        try:
            for hierarchy, folder in self._places:
                folder.mkdir(exist_ok=True)
                for controller in hierarchy.controllers:
                    for name, value in _settings(hierarchy.version, controller, limits).items():
                        _write_if_there(folder / name, value)
        except OSError:
            self.remove()
            raise

    def attach(self, pid: int) -> None:
        """Move a process into the group."""
        for _hierarchy, folder in self._places:
            _write(folder / "cgroup.procs", str(pid))

    def watch_memory(self, threshold_bytes: int) -> int | None:
        """A descriptor that can be read when the group's memory has crossed a threshold, either way.

        None where the kernel has none to give: then :meth:`usage` has to be looked at. On version 2 the kernel slows
        down what goes beyond it. Source: cgroup-v1/memory, "Memory thresholds"; cgroup-v2, ``memory.high``.
        """
        for hierarchy, folder in self._places:
            if "memory" not in hierarchy.controllers:
                continue
            if hierarchy.version == 2:
                _write_if_there(folder / "memory.high", str(threshold_bytes))
                return None
            return _watch_threshold(folder, threshold_bytes)
        return None

    def pids(self) -> set[int]:
        """Every process in the group now."""
        return {int(pid) for _h, folder in self._places for pid in _read(folder / "cgroup.procs").split()}

    def usage(self) -> GroupUsage:
        """What the group uses now; zeros where nothing can be read."""
        memory = peak = processes = kills = 0
        peak_processes = cpu_us = None
        for hierarchy, folder in self._places:
            if "pids" in hierarchy.controllers:
                processes = _read_number(folder / "pids.current")
                # Since Linux 6.11.
                peak_processes = _find_number(folder / "pids.peak")
            if hierarchy.version == 2 and "cpu" in hierarchy.controllers:
                cpu_us = _read_field(folder / "cpu.stat", "usage_usec")
            if _ACCOUNTING in hierarchy.controllers:
                cpu_us = _read_number(folder / "cpuacct.usage") // 1000
            if "memory" in hierarchy.controllers:
                memory, peak, kills = _memory_usage(hierarchy.version, folder)
        return GroupUsage(memory, peak, processes, peak_processes, cpu_us, kills)

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
        gone = True
        for _hierarchy, folder in self._places:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                gone = False
        return gone


def _watch_threshold(folder: Path, threshold_bytes: int) -> int | None:
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        with open(folder / "memory.usage_in_bytes") as usage:
            _write(folder / "cgroup.event_control", f"{event} {usage.fileno()} {threshold_bytes}")
    except OSError:
        os.close(event)
        return None
    return event


class Tree:
    """This server's folder in each hierarchy."""

    def __init__(self, hierarchies: Sequence[Hierarchy], name: str) -> None:
        self._roots = tuple((hierarchy, hierarchy.mount / name) for hierarchy in hierarchies)

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
            except OSError as error:
                raise MechanismFault(f"cannot make the control group {folder}: {error.strerror}") from error

    def group(self, name: str) -> Group:
        """The group of this name, made or not."""
        return Group([(hierarchy, folder / name) for hierarchy, folder in self._roots])

    def names(self) -> set[str]:
        """The groups that there are, of this start of the launcher or of one before."""
        return {
            child.name for _h, folder in self._roots if folder.is_dir() for child in folder.iterdir() if child.is_dir()
        }

    def remove(self) -> bool:
        """Remove the folders, which must hold no groups any more."""
        return Group(self._roots).remove()


def _bound_sockets(folder: Path) -> None:
    """Leave half of what the machine may use for sockets of IP, before they are slowed down, to others than sandboxes.

    A limit that stays also keeps the kernel from patching its code each time that the first group is made.
    Source: ip-sysctl, "tcp_mem", three numbers of pages.
    """
    pages = _read(_TCP_MEMORY).split()
    if len(pages) == 3:
        _write_if_there(folder / _TCP_LIMIT, str(int(pages[1]) // 2 * os.sysconf("SC_PAGE_SIZE")))


def _hand_down(hierarchy: Hierarchy, folder: Path) -> None:
    """Let the groups below a folder of version 2 use the controllers."""
    control = folder / "cgroup.subtree_control"
    lacking = hierarchy.controllers - set(_read(control).split())
    if not lacking:
        return
    wanted = " ".join(f"+{name}" for name in sorted(lacking))
    for attempts_left in reversed(range(_MOST_ATTEMPTS)):
        try:
            _write(control, wanted)
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
    for pid in _read(folder / "cgroup.procs").split():
        try:
            _write(leaf / "cgroup.procs", pid)
        except ProcessLookupError:
            continue
