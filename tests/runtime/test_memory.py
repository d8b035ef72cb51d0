"""Memory, processes, files, disk and processor: going over a limit ends or stops the one who does, and nobody else."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sandgate.core.execution import ExecutionRequest
from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.base import Sandbox
from tests.runtime.hosts import Bench
from tests.runtime.only_inside import ONLY_INSIDE

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.attack]

SMALL = Limits(memory_bytes=64 * MIB, disk_bytes=32 * MIB, inodes=2000, file_size_bytes=16 * MIB, processes=32)

GREEDY = {
    "at once": "x = bytearray(1 << 30)\nfor i in range(0, len(x), 4096): x[i] = 1",
    "slowly": "x = []\nimport time\nwhile True:\n    x.append(bytearray(b'x' * (1 << 20)))\n    time.sleep(0.0005)",
    "in small pieces": "x = []\nwhile True: x.append(object())",
    "in a mapping": "import mmap\nm = mmap.mmap(-1, 1 << 30)\nfor i in range(0, len(m), 4096): m[i] = 1",
    "in a memory file": "import os\nwhile True:\n    fd = os.memfd_create('x')\n"
    "    for _ in range(10): os.write(fd, b'x' * (1 << 20))",
    "in shared memory": "import ctypes\nl = ctypes.CDLL(None)\nl.shmat.restype = ctypes.c_void_p\n"
    "a = l.shmat(l.shmget(0, 1 << 29, 0o1600), None, 0)\nctypes.memset(a, 1, 1 << 29)",
    # Out of descriptors before anybody has looked, it keeps what it has.
    "in sockets": "import socket, time\np = []\nwhile True:\n    try: p.append(socket.socketpair())\n"
    "    except OSError: time.sleep(60)\n    p[-1][0].setblocking(False)\n"
    "    try:\n        while True: p[-1][0].send(b'x' * 4096)\n    except BlockingIOError: pass",
}
# Other work on the machine may come in between the two measurements; whom a neighbour starves waits for seconds.
NEIGHBOURLY, OTHER_WORK_S = 4, 0.5


@pytest.mark.parametrize("name", GREEDY)
@pytest.mark.few_on_gvisor(name=["at once", "in small pieces", "in a memory file", "in shared memory", "in sockets"])
async def test_out_of_memory(name: str, walled: Bench) -> None:
    """It ends the execution under its name; the environment and its files survive, and as a rule one beside it.

    The rule of gVisor's class needs somebody who looks in time, which a busy machine does not give each time.
    """
    for _attempt in range(4 if walled.on_gvisor else 1):
        if await _ends_alone(name, walled):
            return
    pytest.fail("others of its environment ended with it, each time")


async def _ends_alone(name: str, walled: Bench) -> bool:
    sandbox = await walled.make(limits=SMALL)
    beside = sandbox.execute(ExecutionRequest("open('kept', 'w').write('k')\n" + WAIT, 30))
    assert await walled.works(sandbox)
    ran = await walled.run(sandbox, ONLY_INSIDE + "print('before', end='', flush=True)\n" + GREEDY[name])
    assert (ran.status, ran.exit_code, ran.error) == (ExecutionStatus.OUT_OF_MEMORY, None, None)
    if walled.on_gvisor and sandbox.failure is not None:
        assert "memory" in sandbox.failure
        return False
    assert ran.stdout == b"before"
    assert sandbox.failure is None
    go = await walled.run(sandbox, "print(open('kept').read())\nopen('go', 'w').close()")
    waited = await beside.wait()
    if walled.on_gvisor and ExecutionStatus.OUT_OF_MEMORY in (go.status, waited.status):
        assert await walled.works(sandbox)
        return name == "in sockets"
    assert go.stdout == b"k\n"
    if waited.status is ExecutionStatus.OUT_OF_MEMORY:
        # The kernel took it for the culprit, or the culprit was slow to give its memory back: the affair of its own
        # environment, which works on all the same.
        assert await walled.works(sandbox)
    else:
        assert (waited.status, waited.stdout) == (ExecutionStatus.COMPLETED, b"went on\n")
    return True


BY_THREADS = (
    "import threading\ndef f():\n    x = []\n    while True: x.append(bytearray(b'x' * (1 << 20)))\n"
    "for _ in range(4): threading.Thread(target=f).start()"
)


async def test_out_of_memory_by_threads(walled: Bench) -> None:
    """While threads die one by one the kernel may look for more, and finds others of the same environment only."""
    sandbox, neighbour = await walled.make(limits=SMALL), await walled.make(limits=SMALL)
    waiting = neighbour.execute(ExecutionRequest(WAIT, 30))
    assert (await walled.run(sandbox, BY_THREADS)).status is ExecutionStatus.OUT_OF_MEMORY
    assert await walled.works(sandbox)
    assert (await walled.run(neighbour, "open('go', 'w').close()")).exit_code == 0
    assert (await waiting.wait()).stdout == b"went on\n"


@pytest.mark.parametrize("name", ["at once", "in a memory file"])
@pytest.mark.few_on_gvisor(name=["at once"])
async def test_out_of_memory_of_code_that_hides(name: str, walled: Bench) -> None:
    """Code that makes itself look less guilty than it is may take others of its own environment along, not the rest."""
    sandbox = await walled.make(limits=SMALL)
    hide = "score = open('/proc/self/oom_score_adj', 'w')\nscore.write('-1000' if NEGATIVE else '0')\nscore.close()\n"
    refused = await walled.run(sandbox, hide.replace("NEGATIVE", "True"))
    # What is written there means nothing to whoever kills for memory in gVisor's kernel.
    assert walled.on_gvisor or b"PermissionError" in refused.stderr
    ran = await walled.run(sandbox, hide.replace("NEGATIVE", "False") + GREEDY[name])
    assert (ran.status, ran.exit_code) == (ExecutionStatus.OUT_OF_MEMORY, None)
    assert await walled.works(sandbox)


async def test_shared_memory_ends_with_its_user(walled: Bench) -> None:
    """A segment that nobody uses any more does not fill the memory of later executions."""
    sandbox = await walled.make(limits=SMALL)
    if not walled.on_gvisor:
        switch = await walled.run(sandbox, "print(open('/proc/sys/kernel/shm_rmid_forced').read(), end='')")
        if switch.stdout != b"1\n":
            pytest.skip("this kernel keeps the switch for the host's root")
    make = "import ctypes\nl = ctypes.CDLL(None)\nl.shmat.restype = ctypes.c_void_p\n"
    make += "a = l.shmat(l.shmget(7, 50 << 20, 0o1600), None, 0)\nctypes.memset(a, 1, 50 << 20)\n"
    for _round in range(4):
        ran = await walled.run(sandbox, make + "import os; os._exit(0)")
        assert ran.status is ExecutionStatus.COMPLETED
    if not walled.on_gvisor:
        # There they are taken away when memory runs out.
        look = await walled.run(sandbox, "print(len(open('/proc/sysvipc/shm').readlines()))")
        assert look.stdout == b"1\n"


# None of them takes more than it may by itself.
FORKS = (
    "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        x = bytearray(b'x' * (16 << 20))\n"
    "        time.sleep(30)\n        os._exit(0)\nfor _ in range(8): assert os.wait()[1] == 0"
)


async def test_out_of_memory_spread_over_forks(walled: Bench) -> None:
    """What many take is counted together: one of them is ended, and the code that waits for it with it."""
    sandbox = await walled.make(limits=SMALL)
    ran = await walled.run(sandbox, ONLY_INSIDE + FORKS)
    assert (ran.status, ran.exit_code) == (ExecutionStatus.OUT_OF_MEMORY, None)
    assert await walled.works(sandbox)


# Waits for a file that a later execution makes.
WAIT = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('went on')\n"


GREEDY_CHILD = (
    "import os\npid = os.fork()\nif pid == 0:\n    x = []\n    while True: x.append(bytearray(b'x' * (1 << 20)))\n"
    "_, status = os.waitpid(pid, 0)\n"
)


async def test_out_of_memory_of_a_child(walled: Bench) -> None:
    """A process that the code has started is killed, and the code fails with it: that is out of memory, too."""
    sandbox = await walled.make(limits=SMALL)
    failed = await walled.run(sandbox, GREEDY_CHILD + "assert status == 0, status")
    assert (failed.status, failed.exit_code) == (ExecutionStatus.OUT_OF_MEMORY, None)
    # In gVisor the machine may be faster than what looks for the process that has so much, and then all of it ends.
    assert b"AssertionError: 9" in failed.stderr or walled.on_gvisor
    bore_it = await walled.run(sandbox, GREEDY_CHILD + "print(status)")
    bore = (bore_it.status, bore_it.stdout) == (ExecutionStatus.COMPLETED, b"9\n")
    assert bore or (walled.on_gvisor and bore_it.status is ExecutionStatus.OUT_OF_MEMORY)


@pytest.mark.not_on_gvisor("there nothing counts before somebody asks")
async def test_out_of_memory_of_a_child_beside_others(walled: Bench) -> None:
    """Who has lost something that it started is told why it failed; who fails beside it of its own accord is not."""
    sandbox = await walled.make(limits=SMALL)
    beside = sandbox.execute(ExecutionRequest(WAIT + "raise ValueError('of its own')", 300))
    assert await walled.works(sandbox)
    ran = await walled.run(sandbox, GREEDY_CHILD + "assert status == 0, status")
    assert (ran.status, ran.exit_code) == (ExecutionStatus.OUT_OF_MEMORY, None)
    own = await walled.run(sandbox, "import time; time.sleep(0.15); raise ValueError('of its own')")
    assert (own.status, own.exit_code) == (ExecutionStatus.FAILED, 1)
    await walled.run(sandbox, GREEDY_CHILD + "print(status)")
    assert await walled.run(sandbox, "open('go', 'w').close()")
    waited = await beside.wait()
    # As a rule the kernel has left it alone.
    went_on = waited.stdout == b"went on\n"
    assert waited.status is (ExecutionStatus.FAILED if went_on else ExecutionStatus.OUT_OF_MEMORY)


async def test_killed_is_not_out_of_memory(walled: Bench) -> None:
    """The word is the kernel's count, not a guess from the signal."""
    sandbox = await walled.make(limits=SMALL)
    await walled.run(sandbox, GREEDY["at once"])
    ran = await walled.run(sandbox, "import os; os.kill(os.getpid(), 9)")
    assert (ran.status, ran.exit_code) == (ExecutionStatus.FAILED, 137)
    failed = await walled.run(sandbox, "import time; time.sleep(0.1); raise MemoryError('of its own')")
    assert (failed.status, failed.exit_code) == (ExecutionStatus.FAILED, 1)


async def test_full_disk_leaves_memory(walled: Bench) -> None:
    """The disk fills up before memory does; what is in it costs later executions nothing of theirs."""
    sandbox = await walled.make(limits=SMALL)
    fill = (
        "import errno, os\nn = 0\nfor i in range(10):\n    with open(f'full{i}', 'wb', buffering=0) as f:\n"
        "        try:\n            for _ in range(15): n += f.write(b'x' * (1 << 20))\n"
        "        except OSError as e: print(errno.errorcode[e.errno])\nprint(n)"
    )
    ran = await walled.run(sandbox, fill)
    assert ran.status is ExecutionStatus.COMPLETED, ran.stderr
    *errors, written = ran.stdout.split()
    assert set(errors) == {b"ENOSPC"}
    assert 28 * MIB < int(written) <= 32 * MIB
    use = await walled.run(sandbox, "x = b'x' * (40 << 20); print(len(x))")
    assert (use.status, use.stdout) == (ExecutionStatus.COMPLETED, b"41943040\n")
    traced = await walled.run(sandbox, "def f():\n    raise ValueError('shown')\nf()")
    assert b"raise ValueError('shown')" in traced.stderr
    assert (
        await walled.run(sandbox, "import os\nfor f in os.listdir(): os.remove(f)\nopen('x', 'w').write('x' * 9999)")
    ).exit_code == 0


@pytest.mark.parametrize("place", ["/workspace", "/tmp", "/var/tmp", "/dev/shm", "/run/shm", "/home/user"])
@pytest.mark.few_on_gvisor(place=["/workspace", "/dev/shm"])
async def test_inodes(place: str, walled: Bench) -> None:
    """Files are counted, wherever they are; they run out, and come back."""
    sandbox = await walled.make(limits=SMALL)
    if walled.on_gvisor and not await _counts_files(walled, sandbox):
        pytest.skip("this gVisor counts no files: see test_files_that_gvisor_does_not_count")
    fill = f"import errno, os\nos.chdir('{place}')\nn = 0\ntry:\n    while n < 5000:\n"
    fill += "        open(f'f{n}', 'w').close()\n        n += 1\n"
    ran = await walled.run(sandbox, fill + "except OSError as e: print(errno.errorcode[e.errno], n > 1500)")
    assert ran.stdout == b"ENOSPC True\n"
    assert await walled.works(sandbox)


async def _counts_files(walled: Bench, sandbox: Sandbox) -> bool:
    return bool(await walled.ask(sandbox, "import os\nanswer = os.statvfs('/').f_files"))


@pytest.mark.needs_gvisor
async def test_files_that_gvisor_does_not_count(gvisor: Bench) -> None:
    """They are memory of their own environment, which ends what makes more of them, and of nobody else."""
    sandbox, neighbour = await gvisor.make(limits=SMALL), await gvisor.make()
    if await _counts_files(gvisor, sandbox):
        pytest.skip("this gVisor counts files: see test_inodes")
    fill = "n = 0\nwhile n < 1_000_000:\n    open(f'f{n}', 'w').close()\n    n += 1\n"
    fill += "    if not n % 1000: print(n, flush=True)"
    ran = await gvisor.run(sandbox, fill, 60.0)
    assert ran.status is ExecutionStatus.OUT_OF_MEMORY, ran
    made = int(ran.stdout.split()[-1])
    assert made * 1024 <= SMALL.memory_bytes + SMALL.disk_bytes
    assert await gvisor.works(neighbour)


async def test_file_size(walled: Bench) -> None:
    """A file that grows too large is an error, as Python knows it."""
    ran = await walled.run(
        await walled.make(limits=SMALL),
        "import errno\nf = open('large', 'wb')\nf.truncate(16 << 20)\nfor grow in (lambda: f.truncate((16 << 20) + 1),"
        " lambda: (f.seek(16 << 20), f.write(b'x'), f.flush())):\n    try: grow()\n"
        "    except OSError as e: print(errno.errorcode[e.errno])\n"
        "import os; os._exit(0)",
    )
    assert ran.stdout == b"EFBIG\nEFBIG\n"


async def test_open_files(walled: Bench) -> None:
    """Descriptors run out at the limit, which cannot be raised."""
    code = (
        "import errno, os, resource\nn = 0\ntry:\n    while True: os.dup(0); n += 1\n"
        "except OSError as e: print(errno.errorcode[e.errno], n)\n"
        "os.closerange(3, 63)\ntry: resource.setrlimit(resource.RLIMIT_NOFILE, (9999, 9999))\n"
        "except ValueError as e: print(e)"
    )
    ran = await walled.run(await walled.make(limits=Limits(open_files=128)), code)
    # Beside the standard streams, one is the way by which the code came.
    assert ran.stdout == b"EMFILE 124\nnot allowed to raise maximum limit\n"


async def test_processes(walled: Bench) -> None:
    """Processes and threads run out at the limit; neighbours and the next execution have their own."""
    # In gVisor each of them takes some memory of its own.
    limits = replace(SMALL, memory_bytes=(320 if walled.on_gvisor else 64) * MIB)
    sandbox, neighbour = await walled.make(limits=limits), await walled.make(limits=limits)
    code = (
        "import os, time\nn = 0\ntry:\n    while n < 500:\n        if os.fork() == 0: time.sleep(100)\n        n += 1\n"
        "except BlockingIOError: print(n)\ntime.sleep(30)"
    )
    bomb = sandbox.execute(ExecutionRequest(code, 5.0))
    for _round in range(5):
        assert await walled.works(neighbour)
    ran = await bomb.wait()
    assert ran.status is ExecutionStatus.TIMED_OUT
    assert SMALL.processes - 2 <= int(ran.stdout) <= SMALL.processes + SMALL.concurrent_executions
    await walled.quiet(2)
    assert await walled.works(sandbox)


@pytest.mark.not_on_gvisor("slow; test_storm_of_forks asks the same")
async def test_bomb_of_forks(walled: Bench) -> None:
    """A bomb ends as failed or timed out, and a neighbour's hello stays quick."""
    sandbox, neighbour = await walled.make(limits=SMALL), await walled.make()
    alone_s = await walled.hello_s(neighbour)
    bomb = sandbox.execute(ExecutionRequest(f"{ONLY_INSIDE}for _ in range(5_000): os.fork()", 1.0))
    beside_s = await walled.hello_s(neighbour)
    ends = {ExecutionStatus.TIMED_OUT, ExecutionStatus.FAILED}
    assert (await bomb.wait()).status in (ends | {ExecutionStatus.OUT_OF_MEMORY} if walled.on_gvisor else ends)
    assert beside_s <= NEIGHBOURLY * alone_s + OTHER_WORK_S
    await walled.quiet(2)
    assert await walled.works(sandbox)


@pytest.mark.parametrize("cpu_millis", [500, 1000])
@pytest.mark.few_on_gvisor(cpu_millis=[500])
async def test_processor(cpu_millis: int, walled: Bench) -> None:
    """Whoever computes without end gets the share that was granted, however many do it at once."""
    sandbox = await walled.make(limits=Limits(cpu_millis=cpu_millis))
    assert await walled.works(sandbox)
    loop = (
        "import os, resource, time\nopen(str(os.getpid()) + os.urandom(4).hex(), 'w').close()\n"
        "while len(os.listdir()) < 2: time.sleep(0.005)\nstart = time.monotonic()\n"
        "for _ in range(2): os.fork()\nwhile time.monotonic() < start + 0.6 or time.process_time() < 0.02: pass\n"
        "u = resource.getrusage(resource.RUSAGE_SELF)\n"
        "os.write(1, f'{u.ru_utime + u.ru_stime} {start} {time.monotonic()}\\n'.encode())\n"
        "while True:\n    try: os.wait()\n    except ChildProcessError: break"
    )
    before, started = await sandbox.usage(), time.monotonic()
    runs = [sandbox.execute(ExecutionRequest(loop, 20)) for _run in range(2)]
    rows = [[float(word) for word in line.split()] for run in runs for line in (await run.wait()).stdout.splitlines()]
    assert len(rows) == 8
    # The two may have begun apart.
    used_s, took_s = sum(row[0] for row in rows), max(row[2] for row in rows) - min(row[1] for row in rows)
    if walled.on_gvisor:
        # gVisor takes one that waits for its share for one that computes; the host's kernel does not.
        after = await sandbox.usage()
        used_s = ((after.cpu_us or 0) - (before.cpu_us or 0)) / 1e6
        took_s = time.monotonic() - started
    assert 0.05 < used_s <= took_s * cpu_millis / 1000 * 1.15 + 0.1


def _throttled_s(group: Path) -> float:
    """How long a group has had to wait for its share."""
    counts = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(counts["throttled_usec"]) / 1e6 if "throttled_usec" in counts else int(counts["throttled_time"]) / 1e9


@pytest.mark.not_on_gvisor("gVisor's own threads have their part in the same core")
async def test_one_thread_has_its_whole_core(walled: Bench) -> None:
    """Whoever is granted one core and computes in one thread hardly ever waits for it."""
    before = set(walled.host.groups("cpu"))
    sandbox = await walled.make(limits=Limits(cpu_millis=1000))
    (group,) = set(walled.host.groups("cpu")) - before
    kept = next((file for file in (group / "cpu.cfs_burst_us", group / "cpu.max.burst") if file.exists()), None)
    if kept is None:
        pytest.skip("this kernel cannot let what a period leaves be used in the next one")
    assert int(kept.read_text()) > 0
    assert await walled.works(sandbox)
    start_s = _throttled_s(group)
    ran = await walled.run(sandbox, "import time\nwhile time.process_time() < 0.5: pass")
    assert ran.status is ExecutionStatus.COMPLETED
    assert _throttled_s(group) - start_s < 0.1


async def test_usage_is_told(walled: Bench) -> None:
    """The answer says how much processor time and memory an execution took."""
    # In one of its own: what others have left there counts, too.
    sandbox = await walled.make(lifetime_s=120.0)
    idle = await walled.run(sandbox, "import time; time.sleep(0.1)")
    busy = await walled.run(
        sandbox,
        "import time\nend = time.process_time() + 0.1\nx = b'x' * (50 << 20)\nwhile time.process_time() < end: pass",
    )
    # The kernel's clock and the one inside, which in gVisor is its own, differ by some milliseconds.
    assert 80 <= busy.usage.cpu_ms < 1000
    assert idle.usage.cpu_ms < busy.usage.cpu_ms
    assert busy.usage.peak_memory_bytes - idle.usage.peak_memory_bytes > 40 * MIB


@pytest.mark.not_on_gvisor("slow; test_memory_that_is_taken_at_once asks the same")
async def test_neighbours_of_a_greedy_one(walled: Bench) -> None:
    """While one environment takes all that it may, over and over, its neighbour goes on as before."""
    greedy, neighbour = await walled.make(limits=SMALL), await walled.make()
    alone_s = await walled.hello_s(neighbour)

    async def take() -> None:
        for _round in range(3):
            ran = await walled.run(greedy, GREEDY["in a mapping"])
            assert ran.status is ExecutionStatus.OUT_OF_MEMORY

    taking = asyncio.ensure_future(take())
    beside_s = await walled.hello_s(neighbour)
    await taking
    assert beside_s <= NEIGHBOURLY * alone_s + OTHER_WORK_S
