"""The check that ends every run of the tests sees what it is there to see."""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leaks import KINDS, OF_ONE_PROCESS, Leaks, Machine, Process, left_behind, still_left, take_stock
from tests.side_by_side import SIDE_BY_SIDE

# Starts a process that its parent does not wait for, as a crash would leave it, and prints its id.
ORPHAN = """
import os, sys
child = os.fork()
if child == 0:
    os.setsid()
    for stream in (1, 2):
        os.dup2(0, stream)
    os.execv(sys.executable, [sys.executable, "-S", "-c", "import signal; signal.pause()", "sandgate-orphan"])
print(child)
"""


@pytest.fixture
def before() -> dict[str, Leaks]:
    """The machine before the test leaves something behind."""
    return dict(take_stock())


def _wait_for_end(pid: int) -> None:
    """Wait until a process ends that is nobody's child here."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    select.select([descriptor], [], [], 60)
    os.close(descriptor)


@pytest.fixture
def orphan(before: dict[str, Leaks]) -> Iterator[int]:
    """A process named after the product that has lost its parent."""
    command = [sys.executable, "-I", "-S", "-c", ORPHAN]
    pid = int(subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=True).stdout)
    deadline = time.monotonic() + 60
    while not Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"sandgate-orphan\0"):
        # It may not have become its program yet.
        assert time.monotonic() < deadline
    yield pid
    os.kill(pid, signal.SIGKILL)
    _wait_for_end(pid)


def test_an_unchanged_machine_has_nothing_left_behind(before: dict[str, Leaks]) -> None:
    """Two looks at the same machine agree, but for what others do on it meanwhile."""
    # Of two runs beside each other, one may leave for a while what the other takes for its own.
    kinds = OF_ONE_PROCESS if os.environ.get(SIDE_BY_SIDE) else tuple(KINDS)
    found = {kind: names for kind, names in left_behind(before, take_stock()).items() if kind in kinds}
    deadline = time.monotonic() + 60
    while found and time.monotonic() < deadline:
        found = still_left(found, take_stock())
    assert found == {}


def test_what_comes_and_goes_is_not_left_behind() -> None:
    """Only what is there at every look counts."""
    leaks = {"processes": ["1", "2"], "mounts": ["m"]}
    now = {"processes": frozenset({"2", "3"}), "mounts": frozenset[str]()}
    assert still_left(leaks, now) == {"processes": ["2"]}


def test_an_orphan_is_found(before: dict[str, Leaks], orphan: int) -> None:
    """A process that outlived its parent is named with its id and command."""
    found = next(name for name in left_behind(before, take_stock())["processes"] if name.startswith(f"{orphan} "))
    assert "sandgate-orphan" in found


def test_a_child_is_found_whatever_it_is_called(before: dict[str, Leaks]) -> None:
    """A descendant of the test run is to blame on it without any name."""
    with subprocess.Popen(["sleep", "60"]) as child:
        found = left_behind(before, take_stock())["processes"]
        child.kill()
    assert str(child.pid) in [name.split()[0] for name in found]


def test_an_open_descriptor_is_found(before: dict[str, Leaks]) -> None:
    """A pipe that nobody closed is named."""
    ends = os.pipe()
    found = left_behind(before, take_stock())["open descriptors"]
    for end in ends:
        os.close(end)
    assert len(found) == len(ends)


def test_a_temporary_file_is_found(before: dict[str, Leaks]) -> None:
    """A file of the product in the temporary folder is named."""
    handle, path = tempfile.mkstemp(prefix="sandgate-")
    os.close(handle)
    found = left_behind(before, take_stock())
    Path(path).unlink()
    assert path in found["temporary files"]


@pytest.mark.needs_root
def test_a_control_group_is_found(before: dict[str, Leaks], monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty control group of the product is named, in any hierarchy, where nobody else could have made it."""
    monkeypatch.setattr(Machine, "others", frozenset())
    parents = [Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")]
    folder = next(path for path in parents if path.is_dir()) / f"sandgate-left-behind-{os.getpid()}"
    folder.mkdir()
    found = left_behind(before, take_stock())
    folder.rmdir()
    assert str(folder) in found["control groups"]


def test_what_an_older_server_starts_is_not_ours() -> None:
    """An orphan that was there before this run is somebody else's, with all that it starts meanwhile."""
    me = Process(10, 2, "100", "pytest", "", "")
    shell = Process(2, 1, "1", "sh", "", "")
    older, newer = Process(20, 1, "99", "sandgate serve", "", ""), Process(30, 1, "101", "sandgate serve", "", "")
    theirs, own = Process(21, 20, "102", "sandgate", "", ""), Process(31, 30, "102", "sandgate", "", "")
    rows = [Process(1, 0, "0", "init", "", ""), shell, me, older, newer, theirs, own]
    assert Machine({row.pid: row for row in rows}, me.pid).ours == {newer, own}
