"""What a run of the tests could leave behind on the machine, listed so that two lists can be compared.

Other servers and other test runs may be at work on the same machine. What belongs to them has a living parent that is
not this test run, or is older than it; what leaked from here is a descendant of this process, or an orphan that init
has taken over.
"""

import gc
import os
import re
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

NAME = "sandgate"
CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
# Opened once by a library and kept for the life of the process.
KEPT_DESCRIPTORS = re.compile(r"^(/dev/(null|urandom|random|tty|pts/\d+)|.*\.(so|pyc|mo)|.*/\.hypothesis/.*)$")

# The kernel frees namespaces and control groups a while after their last process; a busy machine takes longer.
CLEAN_UP_S = 60.0

Leaks = frozenset[str]


@dataclass(frozen=True, slots=True)
class Process:
    """A row of the process table; ``started`` tells two processes apart that had the same id one after another."""

    pid: int
    parent: int
    started: str
    command: str
    cgroups: str
    network: str

    @property
    def is_named(self) -> bool:
        """Whether its command line or its control group says that it is one of the product's."""
        return NAME in self.command or f"/{NAME}" in self.cgroups

    @property
    def is_init(self) -> bool:
        """Whether it is one of those that take over orphans."""
        return self.pid == 1 or "systemd --user" in self.command


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _process(folder: Path) -> Process | None:
    _, _, tail = _read(folder / "stat").rpartition(") ")
    fields = tail.split()
    if len(fields) < 20:
        return None
    command = _read(folder / "cmdline").replace("\0", " ").strip()
    network = _link(folder / "ns" / "net")
    return Process(int(folder.name), int(fields[1]), fields[19], command, _read(folder / "cgroup"), network)


@dataclass(frozen=True)
class Machine:
    """The process table at one instant, and who in it belongs to this test run."""

    processes: Mapping[int, Process]
    me: int

    @classmethod
    def look(cls) -> "Machine":
        """The machine as it is now."""
        found = (_process(folder) for folder in PROC.iterdir() if folder.name.isdigit())
        return cls({process.pid: process for process in found if process}, os.getpid())

    def _ancestors(self, process: Process) -> list[int]:
        line: list[int] = []
        while process.parent in self.processes and process.parent not in line:
            line.append(process.parent)
            process = self.processes[process.parent]
        return line

    def _is_ours(self, process: Process) -> bool:
        """A descendant of this process, or one whose whole line up to init is the product's own: an orphan."""
        line = self._ancestors(process)
        if self.me in line:
            return True
        return self._may_be_left(process) and all(
            self.processes[pid].is_init or self._may_be_left(self.processes[pid]) for pid in line
        )

    def _may_be_left(self, process: Process) -> bool:
        """Whether it may have begun here; a server that is older than this test run is somebody else's."""
        return process.is_named and int(process.started) >= int(self.processes[self.me].started)

    @cached_property
    def ours(self) -> frozenset[Process]:
        """Processes that this test run is to blame for."""
        return frozenset(p for p in self.processes.values() if p.pid != self.me and self._is_ours(p))

    @cached_property
    def others(self) -> frozenset[int]:
        """Processes of the product that somebody else runs."""
        mine = {process.pid for process in self.ours} | {self.me}
        return frozenset(p.pid for p in self.processes.values() if p.is_named and p.pid not in mine)


def _processes(machine: Machine) -> Leaks:
    return frozenset(f"{p.pid} (started {p.started}): {p.command[:120] or '?'}" for p in machine.ours)


def _networks(machine: Machine) -> Leaks:
    own = _link(PROC / "self" / "ns" / "net")
    return frozenset(p.network for p in machine.ours if p.network and p.network != own)


def _mounts(_: Machine) -> Leaks:
    rows = (line.split() for line in _read(PROC / "self" / "mountinfo").splitlines())
    return frozenset(f"{row[4]} ({row[row.index('-') + 1]})" for row in rows if "-" in row)


def _members(folder: Path) -> set[int]:
    # Folders of others may vanish on the way, which os.walk does not mind.
    lists = (_read(Path(parent) / "cgroup.procs") for parent, _, _ in os.walk(folder))
    return {int(pid) for text in lists for pid in text.split()}


def _control_groups(machine: Machine) -> Leaks:
    top = [Path(parent) / name for parent, names, _ in os.walk(CGROUPS) for name in names if name.startswith(NAME)]
    return frozenset(str(folder) for folder in top if not _members(folder) & machine.others)


def _doubtful(machine: Machine) -> Leaks:
    """Groups without a process, while others are at work: one may be that of a server which holds nothing yet."""
    groups = _control_groups(machine) if machine.others else ()
    return frozenset(group for group in groups if not _members(Path(group)))


def _descriptors(_: Machine) -> Leaks:
    links = {name: _link(PROC / "self" / "fd" / name) for name in os.listdir("/proc/self/fd")}
    kept = {name for name, target in links.items() if not target or KEPT_DESCRIPTORS.match(target)}
    return frozenset(f"{name} -> {target}" for name, target in links.items() if name not in kept)


def _temporary(_: Machine) -> Leaks:
    return frozenset(str(path) for path in Path(tempfile.gettempdir()).glob(f"{NAME}*"))


DOUBTFUL = "doubtful"
KINDS = {
    "processes": _processes,
    "network namespaces": _networks,
    "mounts": _mounts,
    "control groups": _control_groups,
    "open descriptors": _descriptors,
    "temporary files": _temporary,
    DOUBTFUL: _doubtful,
}


# What a process can only have done itself.
OF_ONE_PROCESS = ("open descriptors", "temporary files")


class LeftBehind(Exception):
    """Something is there that was not there before; the text lists it."""


def take_stock() -> Mapping[str, Leaks]:
    """Everything of each kind that exists now."""
    machine = Machine.look()
    return {kind: list_them(machine) for kind, list_them in KINDS.items()}


def left_behind(before: Mapping[str, Leaks], after: Mapping[str, Leaks]) -> dict[str, list[str]]:
    """What is there after and was not before, by kind."""
    added = {kind: sorted(after[kind] - before[kind] - after[DOUBTFUL]) for kind in before}
    return {kind: names for kind, names in added.items() if names}


def still_left(leaks: Mapping[str, list[str]], now: Mapping[str, Leaks]) -> dict[str, list[str]]:
    """Those of ``leaks`` that are there now; what others leave and take away meanwhile is none of ours."""
    kept = {kind: [name for name in names if name in now[kind]] for kind, names in leaks.items()}
    return {kind: names for kind, names in kept.items() if names}


@contextmanager
def nothing_is_left_behind(kinds: Collection[str] = tuple(KINDS)) -> Iterator[None]:
    """Raise :class:`LeftBehind` when anything of ``kinds`` outlives what runs within."""
    gc.collect()
    before = take_stock()
    yield
    deadline = time.monotonic() + CLEAN_UP_S
    gc.collect()
    leaks = {kind: names for kind, names in left_behind(before, take_stock()).items() if kind in kinds}
    while leaks and time.monotonic() < deadline:
        time.sleep(0.05)  # waits: the kernel cleans up in its own time and tells nobody
        leaks = still_left(leaks, take_stock())
    if leaks:
        listed = "\n".join(f"  {kind}: {name}" for kind, names in leaks.items() for name in names)
        raise LeftBehind(f"The tests left this behind:\n{listed}")
