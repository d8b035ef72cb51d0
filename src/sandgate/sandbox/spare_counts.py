"""How many sandboxes are made before they are asked for, where the settings do not say."""

from pathlib import Path, PurePosixPath

from sandgate.core.errors import MechanismFault
from sandgate.core.limits import MIB
from sandgate.sandbox.launcher.counting import read
from sandgate.sandbox.launcher.hierarchies import Hierarchy, find_hierarchies, parse_groups
from sandgate.sandbox.pools_probe import memory_of_machine

# What one holds of the machine's memory, kernel memory and waiting child included, rounded up. Measured: P6.
SPARE_BYTES = 2 * MIB
_LEAST, _FEW, _MOST = 8, 16, 100
_PART_OF_MEMORY = 64
_LIMITS = {1: "memory.limit_in_bytes", 2: "memory.max"}


def choose_spare_counts(
    asked: int | None, most_asked: int | None, memory_bytes: int, *, are_dear: bool = False
) -> tuple[int, int]:
    """How many there are of each template in use, and the most after many were asked for at once.

    ``memory_bytes`` is what the server may use; None is what the settings leave open. ``are_dear`` are those that hold
    more than memory.
    """
    fitting = memory_bytes // _PART_OF_MEMORY // SPARE_BYTES
    least = max(_LEAST, min(_FEW if are_dear else _MOST, fitting)) if asked is None else asked
    if asked is None and most_asked is not None:
        least = min(least, most_asked)
    if least == 0:
        return 0, 0
    return least, max(least, least + least // 4 if most_asked is None else most_asked)


def memory_in_reach(process: Path = Path("/proc/self")) -> int:
    """What the machine has of memory, in bytes, or what the control groups leave of it that a process is in."""
    least = memory_of_machine()
    try:
        hierarchies = find_hierarchies(read(process / "mountinfo"))
    except MechanismFault:
        return least
    for hierarchy in hierarchies:
        if "memory" in hierarchy.controllers:
            limits = (read(folder / _LIMITS[hierarchy.version]).strip() for folder in _own_folders(hierarchy, process))
            least = min([least, *(int(limit) for limit in limits if limit.isdigit())])
    return least


def _own_folders(hierarchy: Hierarchy, process: Path) -> list[Path]:
    """The group of a process in a hierarchy, and those above it, as far as they are seen."""
    name = parse_groups(read(process / "cgroup")).get("memory" if hierarchy.version == 1 else "", "")
    try:
        inner = PurePosixPath(name).relative_to(hierarchy.root)
    except ValueError:
        return [hierarchy.mount]
    return [hierarchy.mount / inner, *(hierarchy.mount / each for each in inner.parents)]
