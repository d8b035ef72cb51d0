"""Parts of control groups count the time of some processes apart: on each version that this machine has mounted."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandgate.sandbox.launcher.cgroup import Group, GroupLimits
from sandgate.sandbox.launcher.hierarchies import Hierarchy

pytestmark = pytest.mark.needs_root_namespaces

WORK_S = 0.04


def _hierarchies() -> dict[int, Hierarchy]:
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _source, options = right.split(" ")[:3]
        root, mount = left.split(" ")[3], Path(left.split(" ")[4])
        if kind == "cgroup2":
            # What is counted there needs no controller.
            found[2] = Hierarchy(2, mount, frozenset({"cpu"}), root)
        elif kind == "cgroup" and "cpuacct" in options.split(","):
            found[1] = Hierarchy(1, mount, frozenset({"cpuacct"}), root)
    return found


@pytest.fixture(params=[1, 2])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    """A group of one version, gone with its parts after the test."""
    hierarchy = _hierarchies().get(request.param)
    if hierarchy is None:
        pytest.skip(f"no control groups of version {request.param} are mounted")
    folder = hierarchy.mount / f"sandgate-test-parts-{os.getpid()}"
    made = Group([(hierarchy, folder)])
    made.make(GroupLimits(None, None, None))
    yield made
    deadline = time.monotonic() + 60
    while not made.remove() and time.monotonic() < deadline:
        pass
    assert not folder.exists()


def _work_in(group: Group, part: str) -> None:
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(ready, 1)
        end = time.process_time() + WORK_S
        while time.process_time() < end:
            pass
        os._exit(0)
    group.attach(pid, part)
    assert pid in group.pids()
    os.write(go, b"x")
    os.waitpid(pid, 0)
    os.close(ready)
    os.close(go)


def _read_us(counter: int | None) -> int:
    assert counter is not None
    text = os.pread(counter, 512, 0).decode()
    return int(text) // 1000 if text.strip().isdigit() else int(text.splitlines()[0].removeprefix("usage_usec "))


def test_parts_are_counted_apart_and_together(group: Group) -> None:
    """Of the part its own; of the group all, also what was in parts that are gone."""
    group.make_part("1")
    whole, part = group.open_counters()["time"], group.open_time("1")
    _work_in(group, "1")
    _work_in(group, "")
    in_part_us, in_all_us = _read_us(part), _read_us(whole)
    assert WORK_S * 1e6 <= in_part_us <= in_all_us - WORK_S * 1e6 * 0.9
    assert in_all_us >= 2 * WORK_S * 1e6
    deadline = time.monotonic() + 60
    while not group.remove_part("1"):
        # For a moment it holds what has ended.
        assert time.monotonic() < deadline
    assert _read_us(whole) >= in_all_us
    for counter in (whole, part):
        os.close(counter or -1)


def test_group_goes_with_its_parts(group: Group) -> None:
    """Those that nobody removed."""
    for name in ("1", "2"):
        group.make_part(name)
    assert not group.remove()
    assert group.remove()


def test_a_process_enters_by_itself(group: Group) -> None:
    """With no other that moves it."""
    entered, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            group.enter()
            os.write(said, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(said)
    try:
        assert os.read(entered, 1) == b"x"
        assert group.pids() == {pid}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(entered)


@pytest.mark.parametrize("part", ["", "1"])
def test_a_process_enters_by_files_that_it_is_given(group: Group, part: str) -> None:
    """It may be anybody's, and need not see the group; of version 2, where that gains nothing, none are given."""
    group.make_part("1")
    entries = group.open_entries(part)
    (version,) = {hierarchy.version for hierarchy, _folder in group._places}
    assert bool(entries) is (version == 1)
    ready, said = os.pipe()
    gone, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(65534)
            os.read(gone, 1)
            for entry in entries:
                os.write(entry, b"0")
            os.write(said, b"x")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert not group.has_entered(pid, part)
        os.write(go, b"x")
        assert os.read(ready, 1) == b"x"
        assert group.has_entered(pid, part) is bool(entries)
        assert group.pids(part) == ({pid} if entries else set())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for end in (*entries, ready, said, gone, go):
            os.close(end)
