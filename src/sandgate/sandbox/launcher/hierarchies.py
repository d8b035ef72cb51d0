"""Where this machine has its control groups: version 1, version 2, or the hybrid of both."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from sandgate.core.errors import MechanismFault

CONTROLLERS = ("memory", "cpu", "pids")
# Counts processor time on version 1, where it may be mounted elsewhere, or not at all; version 2 counts by itself.
ACCOUNTING = "cpuacct"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where some controllers are mounted; ``root`` is what the kernel calls the folder that is seen there."""

    version: int
    mount: Path
    controllers: frozenset[str]
    root: str = "/"


def unescape(path: str) -> str:
    """A path as it is written in ``/proc/self/mountinfo``. Source: proc_pid_mountinfo(5)."""
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def find_hierarchies(mountinfo: str) -> list[Hierarchy]:
    """The hierarchies that hold ``CONTROLLERS``, from the text of ``/proc/self/mountinfo``.

    Source: proc_pid_mountinfo(5). Raises ``MechanismFault`` that names the controllers that are nowhere.
    """
    found: list[Hierarchy] = []
    missing = {*CONTROLLERS, ACCOUNTING}
    unified: list[tuple[Path, str]] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _source, options = [*right.split(" "), "", "", ""][:3]
        root, mount = map(unescape, left.split(" ")[3:5]) if left.count(" ") >= 4 else ("/", "")
        if kind == "cgroup":
            here = frozenset(options.split(",")) & missing
            if here:
                found.append(Hierarchy(1, Path(mount), here, root))
                missing -= here
        elif kind == "cgroup2":
            unified.append((Path(mount), root))
    for folder, root in unified:
        here = frozenset(_controllers(folder)) & missing
        if here:
            found.append(Hierarchy(2, folder, here, root))
            missing -= here
    missing.discard(ACCOUNTING)
    if missing:
        raise MechanismFault(
            f"no control group hierarchy holds {', '.join(sorted(missing))}; mount them, "
            "or give the container its own writable control groups"
        )
    return found


def parse_groups(text: str) -> dict[str, str]:
    """What the kernel calls the groups of a process, by controller; by an empty name the one of version 2.

    From the text of ``/proc/PID/cgroup``. Source: proc_pid_cgroup(5).
    """
    lines = [line.split(":", 2) for line in text.splitlines()]
    return {controller: parts[2] for parts in lines if len(parts) == 3 for controller in parts[1].split(",")}


def write_file(path: Path | str, value: str) -> None:
    """Tell a file of a control group a value: in one write, as the kernel wants it. Raises ``OSError``."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def folders_in(folder: Path) -> list[Path]:
    """The groups in a group; none where it is gone."""
    try:
        return [child for child in folder.iterdir() if child.is_dir()]
    except OSError:
        return []


def remove_folder(folder: Path) -> bool:
    """Remove a folder; False when the kernel has not let go of it yet. Raises ``OSError``."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        return False
    return True


def _controllers(mount: Path) -> list[str]:
    try:
        return (mount / "cgroup.controllers").read_text().split()
    except OSError:
        return []
