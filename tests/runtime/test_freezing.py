"""Standing still: whatever code does, it gets no processor, and it can be ended at once, in any hierarchy there is."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sandgate.core.errors import SandboxFailed
from sandgate.core.execution import ExecutionRequest
from sandgate.core.limits import Limits
from sandgate.core.session import SessionRequest
from sandgate.core.states import ExecutionStatus, Isolation
from sandgate.sandbox.launcher.cgroup import Group, GroupLimits, Tree
from sandgate.sandbox.launcher.freezer import Freezer, FreezerPlace, find_freezers
from sandgate.sandbox.launcher.hierarchies import Hierarchy, find_hierarchies
from tests.runtime.hosts import Bench, start_launcher, until
from tests.runtime.test_life import own_launcher

pytestmark = pytest.mark.needs_root_namespaces

# Processes that fork as fast as they can, that are stopped, that wait in the kernel for a child that shares their
# memory, that are traced, that have threads, and that block all signals.
HOSTILE = """
import ctypes, os, signal, threading, time
libc = ctypes.CDLL(None)
def child(work):
    if os.fork() == 0:
        try:
            work()
        finally:
            os._exit(0)
def burn():
    while True: pass
def bomb():
    while True:
        try:
            if os.fork() == 0: continue
            os.waitpid(-1, os.WNOHANG)
        except OSError:
            pass
def borrow():
    libc.vfork.restype = ctypes.c_int
    os.posix_spawn("/bin/sh", ["sh", "-c", "while :; do :; done"], {})
    time.sleep(1000)
def traced():
    libc.ptrace(0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
def deaf():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    burn()
def threads():
    for _each in range(3): threading.Thread(target=burn).start()
for work in (lambda: os.kill(os.getpid(), signal.SIGSTOP), borrow, traced, deaf, threads, bomb, bomb): child(work)
open("on", "w").close()
time.sleep(1000)
"""


# What is counted as still has a few instructions to go, each process of it, and may have to wait for the processor to
# do so; far less than it would use while somebody looks.
ON_ITS_WAY_US = 10_000


async def _hostile(bench: Bench, limits: Limits | None = None) -> "tuple[object, asyncio.Task[object]]":
    sandbox = await bench.make(limits=limits)
    running = asyncio.create_task(sandbox.execute(ExecutionRequest(HOSTILE, 60)).wait())
    ran = await bench.run(sandbox, "import os, time\nwhile not os.path.exists('on'): time.sleep(0.002)")
    assert ran.status is ExecutionStatus.COMPLETED
    return sandbox, running


@pytest.mark.attack
async def test_hostile_code_stands_still(walled: Bench) -> None:
    """Not a microsecond of processor time is used; the disk can be looked at; it goes on, and ends at once."""
    sandbox, running = await _hostile(walled)
    assert await sandbox.standstill.begin()  # type: ignore[attr-defined]
    before = await sandbox.usage()  # type: ignore[attr-defined]
    await asyncio.sleep(0.1)
    after = await sandbox.usage()  # type: ignore[attr-defined]
    assert after.processes == before.processes
    assert after.cpu_us - before.cpu_us < ON_ITS_WAY_US
    await sandbox.standstill.end()  # type: ignore[attr-defined]
    async with asyncio.timeout(60):
        while after.cpu_us < before.cpu_us + 2 * ON_ITS_WAY_US:
            after = await sandbox.usage()  # type: ignore[attr-defined]
    assert await sandbox.standstill.begin()  # type: ignore[attr-defined]
    started = time.monotonic()
    await walled.runtime.destroy(sandbox.environment_id)  # type: ignore[attr-defined]
    assert time.monotonic() - started < 40
    await running


# A process whose first thread has ended, and whose other one goes on.
HEADLESS = """
import ctypes, os, threading, time
for _each in range(8):
    if os.fork() == 0:
        threading.Thread(target=time.sleep, args=(1000,)).start()
        ctypes.CDLL(None).syscall(60, 0)
open("on", "w").close()
time.sleep(1000)
"""


async def test_processes_without_their_first_threads_stand_still(walled: Bench) -> None:
    """Version 1 of control groups lists them, and version 2 does not: the launcher looks for them once."""
    sandbox = await walled.make()
    running = asyncio.create_task(sandbox.execute(ExecutionRequest(HEADLESS, 60)).wait())
    ran = await walled.run(sandbox, "import os, time\nwhile not os.path.exists('on'): time.sleep(0.002)")
    assert ran.status is ExecutionStatus.COMPLETED
    started = time.monotonic()
    assert await sandbox.standstill.begin()
    assert time.monotonic() - started < 40
    await sandbox.standstill.end()
    await walled.runtime.destroy(sandbox.environment_id)
    await running


async def test_nothing_is_added_to_what_stands_still(walled: Bench) -> None:
    """Executions side by side wait until it goes on; then all run."""
    sandbox = await walled.make()
    await sandbox.standstill.begin()
    waiting = [asyncio.create_task(walled.run(sandbox, "print('on')")) for _each in range(3)]
    done, _pending = await asyncio.wait(waiting, timeout=0.1)
    assert not done
    await sandbox.standstill.end()
    assert [(await each).stdout for each in waiting] == [b"on\n"] * 3


async def test_a_launcher_that_dies_leaves_nothing_frozen() -> None:
    """What stood still is gone with it, at the latest when the next one starts."""
    async with own_launcher(Isolation.STANDARD) as bench:
        sandbox, running = await _hostile(bench)
        await sandbox.standstill.begin()  # type: ignore[attr-defined]
        processes = set(bench.host.processes())
        bench.host.process.kill()
        bench.host.process.wait()
        await running
        bench.host.process = start_launcher(bench.host.config)
        await until(lambda: bench.ended)
        with pytest.raises(SandboxFailed):
            await sandbox.standstill.end()  # type: ignore[attr-defined]
        await until(lambda: not any(_is_alive(pid) for pid in processes))
        await until(lambda: len(bench.host.groups()) == 0)
        assert await bench.works(await bench.make())


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _places() -> list[FreezerPlace]:
    return find_freezers(Path("/proc/self/mountinfo").read_text())


@pytest.fixture(params=[1, 2])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    """A group on this machine's hierarchies, frozen by one version of control groups."""
    places = [place for place in _places() if place.version == request.param]
    if not places:
        pytest.skip("this machine has no freezer of that version")
    hierarchies = find_hierarchies(Path("/proc/self/mountinfo").read_text())
    tree = Tree(hierarchies, f"sandgate-frost-{os.getpid()}-{request.param}", places)
    tree.make()
    assert tree.freezer.is_there
    group = tree.group("g")
    group.make(GroupLimits(None, None, 50))
    yield group
    for pid in group.pids():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert group.frost is not None
    group.frost.let_die()
    _wait_for(lambda: not group.pids())
    _wait_for(group.remove)
    assert tree.names() == set()
    assert tree.remove()


def _wait_for(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.002)  # waits: the kernel tells nobody


def test_both_versions_hold_a_fork_bomb(group: Group) -> None:
    """Every process is gathered, those that are forked meanwhile too; killed it dies, on version 1 when it is let go.

    Once more after it went on, with what was forked since.
    """
    bomb = "import os\nwhile True:\n try: os.fork()\n except OSError: pass"
    first = subprocess.Popen([sys.executable, "-c", f"import os\nos.read(0, 1)\n{bomb}"], stdin=subprocess.PIPE)
    frost = group.frost
    assert frost is not None
    assert first.stdin is not None
    try:
        group.attach(first.pid)
        first.stdin.write(b"x")
        first.stdin.close()
        _wait_for(lambda: len(group.pids()) > 20)
        for _round in range(2):
            frost.freeze()
            _wait_for(lambda: frost.is_settled)
            before = group.usage().cpu_us or 0
            time.sleep(0.05)  # waits: for what must not happen
            assert (group.usage().cpu_us or 0) - before < ON_ITS_WAY_US
            frost.thaw()
            assert not frost.is_settled
        frost.freeze()
    finally:
        for pid in group.pids():
            os.kill(pid, signal.SIGKILL)
        frost.let_die()
        first.wait(60)
    _wait_for(lambda: not group.pids())


def test_an_empty_group_stands_still_too(group: Group) -> None:
    """It is nothing special, and gone when it is removed."""
    frost = group.frost
    assert frost is not None
    frost.freeze()
    frost.freeze()
    frost.thaw()


async def test_a_session_that_waits_is_no_use(standard: Bench) -> None:
    """It stands still along with what it knows; the time of its code does, too."""
    sandbox = await standard.make()
    for _attempt in range(5):
        session = sandbox.open_session(SessionRequest())
        await session.wait_until_ready()
        assert sandbox.is_idle
        started = time.monotonic()
        cell = session.execute(ExecutionRequest("import time\ntime.sleep(2)\nx = 1", 3.0))
        ended = asyncio.create_task(cell.wait())
        assert not sandbox.is_idle
        assert await sandbox.standstill.begin()
        is_in_time = time.monotonic() - started < 1
        if is_in_time:
            done, _pending = await asyncio.wait({ended}, timeout=3.2)
            assert not done
        went_on = time.monotonic()
        await sandbox.standstill.end()
        is_completed = (await ended).status is ExecutionStatus.COMPLETED
        if is_in_time and is_completed:
            break
        # It was stopped too late, or the two seconds that were left of its time went by after it was let go on.
        assert not is_in_time or time.monotonic() - went_on > 1.5
        session.end("another one follows")
        await session.wait()
    else:
        pytest.fail("this machine was too late every time")
    assert (await session.execute(ExecutionRequest("print(x)", 60)).wait()).stdout == b"1\n"


@pytest.fixture
def shared_group() -> Iterator[Group]:
    """A group of version 2, which is frozen in its own folder, as where its limits are on version 2."""
    places = [place for place in _places() if place.version == 2]
    if not places:
        pytest.skip("this machine has no freezer of version 2")
    own = Hierarchy(2, places[0].mount, frozenset({"cpu"}))
    folder = own.mount / f"sandgate-frost-{os.getpid()}-shared"
    freezer = Freezer([FreezerPlace(2, own.mount)], folder.name)
    freezer.make()
    group = Group([(own, folder / "g")], (freezer, "g"))
    group.make(GroupLimits(None, None, None))
    yield group
    for pid in group.pids():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _wait_for(lambda: not group.pids())
    _wait_for(group.remove)
    folder.rmdir()


def test_a_part_goes_on_while_the_rest_stands_still(group: Group, tmp_path: Path) -> None:
    """What is in no part and what is in another one is stopped, forks of both along; and once more after it went on."""
    _let_a_part_go_on(group, tmp_path)


def test_a_part_goes_on_where_the_group_is_frozen_itself(shared_group: Group, tmp_path: Path) -> None:
    """The same, where there is one folder for all."""
    _let_a_part_go_on(shared_group, tmp_path)


COUNT = """
import os, sys
n = 0
while True:
    n += 1
    open(sys.argv[1], 'w').write(str(n))
    os.wait() if os.fork() else os._exit(0)
"""


def _wait_for_another(file: Path) -> None:
    before = file.read_text()
    _wait_for(lambda: file.read_text() not in ("", before))


def _let_a_part_go_on(group: Group, folder: Path) -> None:
    frost = group.frost
    assert frost is not None
    for part in ("1", "2"):
        group.make_part(part)
    files = {part: folder / f"counted-{part}" for part in ("", "1", "2")}
    running = {}
    try:
        for part, file in files.items():
            running[part] = subprocess.Popen([sys.executable, "-c", COUNT, str(file)])
            group.attach(running[part].pid, part)
        _wait_for(lambda: all(file.exists() and file.read_text() for file in files.values()))
        for _round in range(2):
            frost.freeze("2")
            _wait_for(lambda: frost.is_settled)
            stopped = [files[part].read_text() for part in ("", "1")]
            _wait_for_another(files["2"])
            assert [files[part].read_text() for part in ("", "1")] == stopped
            frost.thaw()
            _wait_for_another(files[""])
            _wait_for_another(files["1"])
        frost.freeze()
        _wait_for(lambda: frost.is_settled)
        frost.thaw()
        with pytest.raises(OSError, match="cannot be told"):
            frost.freeze("3")
    finally:
        for process in running.values():
            process.kill()
            process.wait(60)
