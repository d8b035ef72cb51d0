"""Processes that put themselves into a control group of version 1.

To move another process the kernel keeps all of the machine from forking and from ending, and waits 10 to 20 ms for that
when it has not been done for a moment; a thread that moves itself holds up nobody. So whoever is to be in a group is
handed its files, writes to them, and says so; nobody relies on that without having looked.
Source: cgroup_procs_write_start() in kernel/cgroup/cgroup.c; cgroup-v1/cgroups, "tasks".
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePosixPath

from sandgate.sandbox.launcher.hierarchies import Hierarchy, parse_groups

Folders = Sequence[tuple[Hierarchy, str]]
"""Where a process is to be: a folder in each hierarchy."""


def open_entries(folders: Folders) -> list[int]:
    """Descriptors for who is to enter, each to be written ``0`` to; none where a hierarchy is of version 2.

    Raises ``OSError`` with none left open.
    """
    opened: list[int] = []
    if any(hierarchy.version != 1 for hierarchy, _folder in folders):
        return opened
    try:
        for _hierarchy, folder in folders:
            opened.append(os.open(f"{folder}/tasks", os.O_WRONLY | os.O_CLOEXEC))
    except OSError:
        for descriptor in opened:
            os.close(descriptor)
        raise
    return opened


def has_entered(folders: Folders, pid: int, process: str = "/proc/{}/cgroup") -> bool:
    """Whether the first thread of a process is there, in every hierarchy; False, too, where that cannot be told."""
    try:
        with open(process.format(pid), encoding="utf-8") as file:
            found = parse_groups(file.read())
    except (OSError, UnicodeError):
        return False
    with suppress(ValueError):
        return all(
            found.get(controller) == _name(hierarchy, folder)
            for hierarchy, folder in folders
            for controller in hierarchy.controllers
        )
    return False


def _name(hierarchy: Hierarchy, folder: str) -> str:
    """What the kernel calls a folder. Raises ``ValueError``."""
    return str(PurePosixPath(hierarchy.root, PurePosixPath(folder).relative_to(hierarchy.mount)))
