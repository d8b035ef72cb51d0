"""Control groups on every layout that is in the field, from captured texts and on a folder that looks like one."""

import errno
import os
import select
import subprocess
import time
from pathlib import Path

import pytest

from sandgate.core.errors import MechanismFault
from sandgate.sandbox.launcher import cgroup, hierarchies
from sandgate.sandbox.launcher.cgroup import CPU_PERIOD_US, Group, GroupLimits, Tree, watch_changes
from sandgate.sandbox.launcher.counting import GroupUsage
from sandgate.sandbox.launcher.hierarchies import Hierarchy, find_hierarchies

OTHERS = """\
22 28 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
23 28 0:21 / /proc rw,relatime - proc proc rw
26 23 0:24 / /dev/with\\040space rw,relatime shared:2 master:1 - tmpfs tmpfs rw,size=4k
"""
V1 = """\
30 22 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/systemd rw,relatime shared:10 - cgroup cgroup rw,xattr,name=systemd
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:11 - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw,relatime shared:12 - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/pids rw,relatime shared:13 - cgroup cgroup rw,pids
"""
LIMITS = GroupLimits(memory_bytes=1 << 20, cpu_millis=500, processes=7)
NONE = GroupLimits(memory_bytes=None, cpu_millis=None, processes=None)


def _unified(folder: Path, controllers: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "cgroup.controllers").write_text(controllers)
    escaped = str(folder).replace("\\", "\\134").replace(" ", "\\040")
    return f"35 30 0:31 / {escaped} rw,nosuid shared:14 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_version_1() -> None:
    """Each controller where it is mounted, together with what it shares a hierarchy with."""
    found = find_hierarchies(OTHERS + V1)
    assert [(each.version, str(each.mount), set(each.controllers)) for each in found] == [
        (1, "/sys/fs/cgroup/cpu,cpuacct", {"cpu", "cpuacct"}),
        (1, "/sys/fs/cgroup/memory", {"memory"}),
        (1, "/sys/fs/cgroup/pids", {"pids"}),
    ]


def test_version_2(tmp_path: Path) -> None:
    """One hierarchy for all, whose folder may have any name."""
    folder = tmp_path / "a folder\\x"
    (found,) = find_hierarchies(OTHERS + _unified(folder, "cpuset cpu io memory pids\n"))
    assert found == Hierarchy(2, folder, frozenset({"cpu", "memory", "pids"}))


def test_hybrid(tmp_path: Path) -> None:
    """What version 1 has not taken is used where it is."""
    text = OTHERS + V1.replace(",relatime shared:13 - cgroup cgroup rw,pids", ",relatime - tmpfs x rw")
    found = find_hierarchies(text + _unified(tmp_path, "pids\n"))
    assert {(each.version, tuple(sorted(each.controllers))) for each in found} == {
        (1, ("cpu", "cpuacct")),
        (1, ("memory",)),
        (2, ("pids",)),
    }
    # An empty unified hierarchy beside a whole version 1.
    assert all(each.version == 1 for each in find_hierarchies(V1 + _unified(tmp_path, "")))


@pytest.mark.parametrize(("text", "missing"), [("", "cpu, memory, pids"), (OTHERS, "cpu, memory, pids")])
def test_container_without(text: str, missing: str) -> None:
    """What is nowhere is named."""
    with pytest.raises(MechanismFault, match=missing):
        find_hierarchies(text)


def test_container_with_some(tmp_path: Path) -> None:
    """A hierarchy that was handed into a container without all controllers is not enough."""
    with pytest.raises(MechanismFault, match="holds memory;"):
        find_hierarchies(_unified(tmp_path, "cpu pids"))


@pytest.mark.parametrize(
    "line", ["", "-", " - ", "x - cgroup", "1 2 3 - cgroup2 a b", "a b c d e - cgroup cgroup rw,memory"]
)
def test_odd_lines(line: str) -> None:
    """They are passed over."""
    assert len(find_hierarchies(f"{line}\n{V1}")) == 3


FILES = {
    1: ("cgroup.procs", "pids.max", "cpu.cfs_period_us", "cpu.cfs_quota_us", "memory.limit_in_bytes"),
    2: ("cgroup.procs", "pids.max", "cpu.max", "memory.max", "memory.swap.max"),
}


CONTROLLERS = {1: frozenset({*hierarchies.CONTROLLERS, "cpuacct"}), 2: frozenset(hierarchies.CONTROLLERS)}


class FakeKernel:
    """Folders that have the files of a control group."""

    def __init__(self, folder: Path, version: int) -> None:
        self.hierarchy = Hierarchy(version, folder, CONTROLLERS[version])
        self.group = Group([(self.hierarchy, folder / "g")])
        (folder / "g").mkdir()
        for name in FILES[version]:
            (folder / "g" / name).write_text("")

    def read(self, name: str) -> str:
        """What was written last."""
        return (self.hierarchy.mount / "g" / name).read_text()

    def write(self, name: str, text: str) -> None:
        """What the kernel says."""
        (self.hierarchy.mount / "g" / name).write_text(text)


def test_limits_of_version_1(tmp_path: Path) -> None:
    """Each limit in its file; swap is limited where it is counted only."""
    kernel = FakeKernel(tmp_path, 1)
    kernel.group.make(LIMITS)
    assert kernel.read("pids.max") == "7"
    assert kernel.read("cpu.cfs_period_us") == str(CPU_PERIOD_US)
    assert kernel.read("cpu.cfs_quota_us") == str(CPU_PERIOD_US // 2)
    assert kernel.read("memory.limit_in_bytes") == str(1 << 20)
    assert not (tmp_path / "g" / "memory.memsw.limit_in_bytes").exists()
    kernel.write("memory.memsw.limit_in_bytes", "")
    kernel.group.make(LIMITS)
    assert kernel.read("memory.memsw.limit_in_bytes") == str(1 << 20)


def test_limits_of_version_2(tmp_path: Path) -> None:
    """Each limit in its file, and no swap."""
    kernel = FakeKernel(tmp_path, 2)
    kernel.group.make(LIMITS)
    assert kernel.read("pids.max") == "7"
    assert kernel.read("cpu.max") == f"{CPU_PERIOD_US // 2} {CPU_PERIOD_US}"
    assert (kernel.read("memory.max"), kernel.read("memory.swap.max")) == (str(1 << 20), "0")


def test_too_much_memory_is_told_of_by_version_2(tmp_path: Path) -> None:
    """The kernel is told where it begins, slows down what goes beyond it, and counts that in a file."""
    kernel = FakeKernel(tmp_path, 2)
    for name in ("memory.high", "memory.events"):
        kernel.write(name, "")
    descriptor = kernel.group.watch_memory(12345)
    assert descriptor is not None
    try:
        assert kernel.read("memory.high") == "12345"
        assert not select.select([descriptor], [], [], 0)[0]
        kernel.write("memory.events", "high 1\n")
        assert select.select([descriptor], [], [], 30)[0]
        assert os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("version", [1, 2])
def test_a_kernel_that_tells_of_nothing(tmp_path: Path, version: int) -> None:
    """It has to be looked at."""
    kernel = FakeKernel(tmp_path, version)
    before = len(os.listdir("/proc/self/fd"))
    assert kernel.group.watch_memory(12345) is None
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.needs_root
def test_the_kernel_tells_of_changes_of_its_own_files() -> None:
    """Here of the one that says whether a group is empty: all of version 2 that tell of events are of one make."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    mount = next((Path(row[1]) for row in mounts if row[2] == "cgroup2" and "rw" in row[3].split(",")), None)
    if mount is None:
        pytest.skip("no control groups of version 2 are mounted here")
    group = mount / f"sandgate-test-{os.getpid()}"
    group.mkdir()
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        descriptor = watch_changes(group / "cgroup.events")
        assert descriptor is not None
        try:
            (group / "cgroup.procs").write_text(str(process.pid))
            assert select.select([descriptor], [], [], 30)[0]
        finally:
            os.close(descriptor)
    deadline = time.monotonic() + 30
    while "populated 1" in (group / "cgroup.events").read_text() and time.monotonic() < deadline:
        time.sleep(0.002)  # waits: the kernel empties a group a moment after the end of its last process
    group.rmdir()


@pytest.mark.parametrize(("version", "name"), [(1, "cpu.cfs_burst_us"), (2, "cpu.max.burst")])
def test_what_a_period_leaves(version: int, name: str, tmp_path: Path) -> None:
    """It may be used in the next period, where the kernel knows that."""
    kernel = FakeKernel(tmp_path, version)
    kernel.group.make(LIMITS)
    assert not (tmp_path / "g" / name).exists()
    kernel.write(name, "0")
    kernel.group.make(NONE)
    assert kernel.read(name) == "0"
    kernel.group.make(LIMITS)
    assert kernel.read(name) == str(CPU_PERIOD_US // 2)


@pytest.mark.parametrize("version", [1, 2])
def test_no_limits(version: int, tmp_path: Path) -> None:
    """What is not limited is said to be so."""
    kernel = FakeKernel(tmp_path, version)
    kernel.group.make(NONE)
    assert kernel.read("pids.max") == "max"
    assert (kernel.read("cpu.cfs_quota_us") if version == 1 else kernel.read("cpu.max").split()[0]) in ("-1", "max")


@pytest.mark.parametrize("millis", [1, 99, 100])
def test_smallest_share(millis: int, tmp_path: Path) -> None:
    """The kernel takes no quota below a millisecond."""
    kernel = FakeKernel(tmp_path, 2)
    kernel.group.make(GroupLimits(None, millis, None))
    assert kernel.read("cpu.max").split()[0] == "1000"


def test_accounting_is_wanted_and_not_needed() -> None:
    """Processor time may be counted in a hierarchy of its own, or nowhere on version 1."""
    own = V1.replace("cgroup rw,cpu,cpuacct", "cgroup rw,cpu") + (
        "36 30 0:32 / /sys/fs/cgroup/cpuacct rw,relatime shared:15 - cgroup cgroup rw,cpuacct\n"
    )
    assert [each.controllers for each in find_hierarchies(own)][-1] == {"cpuacct"}
    without = find_hierarchies(V1.replace("cpu,cpuacct", "cpu"))
    assert set().union(*(each.controllers for each in without)) == set(hierarchies.CONTROLLERS)


@pytest.mark.parametrize("version", [1, 2])
def test_change(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of a group that is there can be raised and lowered."""
    kernel = FakeKernel(tmp_path, version)
    monkeypatch.setattr(cgroup, "write_file", lambda path, value: path.write_text(value))
    for limits in (LIMITS, GroupLimits(1 << 30, 1500, 99), LIMITS):
        kernel.group.change(limits)
        assert kernel.read("pids.max") == str(limits.processes)
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        assert kernel.read(name) == str(limits.memory_bytes)


def test_change_that_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two limits that bound each other are set in the order that the kernel takes; what it never takes is an error."""
    kernel = FakeKernel(tmp_path, 1)
    kernel.write("memory.memsw.limit_in_bytes", "5")
    kernel.write("memory.limit_in_bytes", "5")

    def write(path: Path, value: str) -> None:
        if path.name == "memory.limit_in_bytes" and int(value) > int(kernel.read("memory.memsw.limit_in_bytes")):
            raise OSError(errno.EINVAL, "Invalid argument")
        if path.name == "pids.max" and value == "13":
            raise OSError(errno.EINVAL, "Invalid argument")
        path.write_text(value)

    monkeypatch.setattr(cgroup, "write_file", write)
    kernel.group.change(LIMITS)
    assert kernel.read("memory.limit_in_bytes") == kernel.read("memory.memsw.limit_in_bytes") == str(1 << 20)
    with pytest.raises(OSError, match=r"pids\.max"):
        kernel.group.change(GroupLimits(1 << 20, 500, 13))


def test_usage_of_version_1(tmp_path: Path) -> None:
    """Figures come from the files of the version."""
    kernel = FakeKernel(tmp_path, 1)
    for name, text in {
        "memory.usage_in_bytes": "10\n",
        "memory.max_usage_in_bytes": "20\n",
        "pids.current": "3\n",
        "pids.peak": "8\n",
        "cpuacct.usage": "5000999\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 1\noom_kill 4\n",
    }.items():
        kernel.write(name, text)
    assert kernel.group.usage() == GroupUsage(10, 20, 3, 8, 5000, 4)


def test_usage_of_version_2(tmp_path: Path) -> None:
    """Figures come from the files of the version; a peak that the kernel does not know is zero."""
    kernel = FakeKernel(tmp_path, 2)
    for name, text in {
        "memory.current": "10\n",
        "pids.current": "3\n",
        "cpu.stat": "usage_usec 77\nuser_usec 70\n",
        "memory.events": "low 0\nhigh 0\nmax 9\noom 5\noom_kill 4\noom_group_kill 0\n",
    }.items():
        kernel.write(name, text)
    assert kernel.group.usage() == GroupUsage(10, 0, 3, None, 77, 4)


@pytest.mark.parametrize("version", [1, 2])
def test_usage_of_nothing(version: int, tmp_path: Path) -> None:
    """A group that is gone uses nothing."""
    group = Group([(Hierarchy(version, tmp_path, frozenset(hierarchies.CONTROLLERS)), tmp_path / "gone")])
    nothing = group.usage()
    assert (nothing.memory_bytes, nothing.peak_memory_bytes, nothing.processes, nothing.out_of_memory_kills) == (0,) * 4
    assert nothing.peak_processes is None
    assert not nothing.cpu_us
    assert group.pids() == set()
    assert group.remove() is True


def test_group_in_two_hierarchies(tmp_path: Path) -> None:
    """A process is attached to each, and the pids of all are known."""
    places = []
    for number in range(2):
        folder = tmp_path / str(number)
        (folder / "g").mkdir(parents=True)
        (folder / "g" / "cgroup.procs").write_text("")
        places.append((Hierarchy(1, folder, frozenset()), folder / "g"))
    group = Group(places)
    group.attach(7)
    assert [(folder / "cgroup.procs").read_text() for _hierarchy, folder in places] == ["7", "7"]
    (places[1][1] / "cgroup.procs").write_text("7\n8\n")
    assert group.pids() == {7, 8}


def test_making_fails_whole(tmp_path: Path) -> None:
    """When the second folder cannot be made, the first is gone again."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.write_text("no folder")
    group = Group([(Hierarchy(1, folder, frozenset()), folder / "g") for folder in (first, second)])
    with pytest.raises(OSError, match="Not a directory"):
        group.make(LIMITS)
    assert list(first.iterdir()) == []


def test_tree(tmp_path: Path) -> None:
    """The tree hands its controllers down, knows what is in it, and goes when it is empty."""
    (tmp_path / "cgroup.subtree_control").write_text("cpu")
    mount = tmp_path
    tree = Tree([Hierarchy(2, mount, frozenset({"cpu", "memory"}))], "t")
    (mount / "t").mkdir()
    (mount / "t" / "cgroup.subtree_control").write_text("cpu memory")
    tree.make()
    assert (mount / "cgroup.subtree_control").read_text() == "+memory"
    assert (mount / "t" / "cgroup.subtree_control").read_text() == "cpu memory"
    (mount / "t" / "cgroup.subtree_control").unlink()
    assert tree.names() == set()
    tree.group("a").make(NONE)
    assert tree.names() == {"a"}
    assert tree.group("a").remove()
    assert tree.remove()
    assert tree.names() == set()


@pytest.mark.parametrize(("version", "memory"), [(1, "memory.limit_in_bytes"), (2, "memory.max")])
def test_all_together_leave_the_machine_something(tmp_path: Path, version: int, memory: str) -> None:
    """A tenth of its memory and half of its numbers of processes, however many sandboxes there are."""
    folder = tmp_path / "t"
    folder.mkdir()
    for name in (memory, "pids.max"):
        (folder / name).write_text("max")
    for place in (tmp_path, folder):
        (place / "cgroup.subtree_control").write_text("memory pids")
    Tree([Hierarchy(version, tmp_path, frozenset({"memory", "pids"}))], "t").make()
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0.89 < int((folder / memory).read_text()) / machine < 0.91
    assert 0 < int((folder / "pids.max").read_text()) <= int(Path("/proc/sys/kernel/pid_max").read_text()) // 2


def test_tree_that_cannot_be_made(tmp_path: Path) -> None:
    """Says which folder, and why."""
    (tmp_path / "t").write_text("no folder")
    with pytest.raises(MechanismFault, match="cannot make the control group"):
        Tree([Hierarchy(1, tmp_path / "t", frozenset())], "x").make()


@pytest.mark.parametrize(("rounds", "made"), [(0, True), (1, True), (4, True), (5, False)])
def test_a_root_that_holds_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, made: bool) -> None:
    """In a container they are moved out of the way, also those that were started meanwhile, but not forever."""
    (tmp_path / "cgroup.subtree_control").write_text("")
    (tmp_path / "cgroup.procs").write_text("7\n8\n")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "cgroup.subtree_control").write_text("memory")
    refusals = iter([errno.EBUSY] * rounds)
    moved: list[str] = []

    def write(path: Path, value: str) -> None:
        if path.name == "cgroup.procs":
            moved.append(f"{path.parent.name} {value}")
        elif number := next(refusals, None):
            raise OSError(number, "Device or resource busy")

    monkeypatch.setattr(cgroup, "write_file", write)
    tree = Tree([Hierarchy(2, tmp_path, frozenset({"memory"}))], "t")
    if made:
        tree.make()
    else:
        with pytest.raises(MechanismFault, match="busy"):
            tree.make()
    assert moved == ["sandgate-rest 7", "sandgate-rest 8"] * min(rounds, 4)
