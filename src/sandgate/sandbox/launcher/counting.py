"""What the kernel has counted for a control group.

Numbers are read here when somebody asks, or by the gateway from open files, which costs it less than a microsecond.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandgate.sandbox.launcher.hierarchies import ACCOUNTING, Hierarchy

Places = Sequence[tuple[Hierarchy, Path]]
"""The folders of a group, with the hierarchy that each is in."""

_KILLS = {1: "memory.oom_control", 2: "memory.events"}
_PEAK_1, _PEAK_2 = "memory.max_usage_in_bytes", "memory.peak"


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


def read(path: Path) -> str:
    """The text of a file; none of one that cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _read_number(path: Path) -> int:
    text = read(path).strip()
    return int(text) if text.isdigit() else 0


def _read_field(path: Path, field: str) -> int:
    for line in read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == field and value.strip().isdigit():
            return int(value)
    return 0


def _find_number(path: Path) -> int | None:
    text = read(path).strip()
    return int(text) if text.isdigit() else None


def _memory_usage(version: int, folder: Path) -> tuple[int, int, int]:
    """Bytes now and at most, and the kernel's kills."""
    kills = _read_field(folder / _KILLS[version], "oom_kill")
    if version == 2:
        return _read_number(folder / "memory.current"), _read_number(folder / _PEAK_2), kills
    # The first one is never set back, and counts what was swapped out as well; there where swap is accounted.
    peaks = (_find_number(folder / name) for name in ("memory.memsw.max_usage_in_bytes", _PEAK_1))
    peak = next((found for found in peaks if found is not None), 0)
    return _read_number(folder / "memory.usage_in_bytes"), peak, kills


def count(places: Places) -> GroupUsage:
    """What the group uses now; zeros where nothing can be read."""
    memory = peak = processes = kills = 0
    peak_processes = cpu_us = None
    for hierarchy, folder in places:
        if "pids" in hierarchy.controllers:
            processes = _read_number(folder / "pids.current")
            # Since Linux 6.11.
            peak_processes = _find_number(folder / "pids.peak")
        if hierarchy.version == 2 and "cpu" in hierarchy.controllers:
            cpu_us = _read_field(folder / "cpu.stat", "usage_usec")
        if ACCOUNTING in hierarchy.controllers:
            cpu_us = _read_number(folder / "cpuacct.usage") // 1000
        if "memory" in hierarchy.controllers:
            memory, peak, kills = _memory_usage(hierarchy.version, folder)
    return GroupUsage(memory, peak, processes, peak_processes, cpu_us, kills)


def count_file_cache(places: Places) -> int:
    """Bytes of what the group has of files of disks, which the kernel takes back before it kills; 0 if unknown.

    Source: cgroup-v1/memory and cgroup-v2, ``memory.stat``; memory of shared memory and of tmpfs is in neither.
    """
    for hierarchy, folder in places:
        if "memory" in hierarchy.controllers:
            return sum(_read_field(folder / "memory.stat", name) for name in ("active_file", "inactive_file"))
    return 0


def counts_time(hierarchy: Hierarchy) -> bool:
    """Whether processor time is counted there."""
    return ACCOUNTING in hierarchy.controllers or (hierarchy.version == 2 and "cpu" in hierarchy.controllers)


def open_time(places: Places, part: str = "") -> int | None:
    """The counter of processor time of a group, or of a part of it, to be read; None where there is none.

    Its text is a number of nanoseconds, or what ``cpu.stat`` of version 2 says.
    """
    for hierarchy, folder in places:
        if counts_time(hierarchy):
            name = "cpuacct.usage" if ACCOUNTING in hierarchy.controllers else "cpu.stat"
            return _open(f"{folder}/{part}/{name}" if part else f"{folder}/{name}", os.O_RDONLY)
    return None


def open_peak(places: Places) -> int | None:
    """The most memory that the group has had, to be read, and to be set back by writing; None where it cannot be.

    What it is set back for others: on version 2 not at all (Linux 6.12), on version 1 there is another one for them.
    Source: cgroup-v2, ``memory.peak``; cgroup-v1/memory, ``memsw``.
    """
    for hierarchy, folder in places:
        if "memory" in hierarchy.controllers:
            if hierarchy.version == 1 and not os.path.exists(f"{folder}/memory.memsw.max_usage_in_bytes"):
                return None
            return _open(f"{folder}/{_PEAK_1 if hierarchy.version == 1 else _PEAK_2}", os.O_RDWR)
    return None


def open_kills(places: Places) -> int | None:
    """Where the kernel counts its kills for want of memory, to be read: a line of ``oom_kill`` and the number."""
    for hierarchy, folder in places:
        if "memory" in hierarchy.controllers:
            return _open(f"{folder}/{_KILLS[hierarchy.version]}", os.O_RDONLY)
    return None


def _open(path: str, flags: int) -> int | None:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError:
        return None
