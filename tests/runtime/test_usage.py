"""What environments are counted for, and limits that are asked for: set on what was made ahead, and held."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus, Isolation
from sandgate.sandbox.base import Sandbox
from tests.runtime.hosts import Bench, until
from tests.runtime.test_zygotes import own_launcher

pytestmark = pytest.mark.needs_root_namespaces

ASKED = Limits(memory_bytes=48 * MIB, disk_bytes=24 * MIB, processes=12, cpu_millis=500)
MORE = Limits(memory_bytes=700 * MIB, disk_bytes=400 * MIB, processes=90, cpu_millis=1500)
FILL = (
    "import errno\nn, kept = 0, []\ntry:\n    while n < 1000:\n"
    "        with open(f'f{n // 100}', 'ab', buffering=0) as f: f.write(bytes(1 << 20))\n        n += 1\n"
    "except OSError as e: kept.append(errno.errorcode[e.errno])\nanswer = [n, *kept]"
)
ACCOUNTED_APART = Path("/sys/fs/cgroup/cpuacct").exists()
# One clock of the kernel's is read a moment after another, and counts are rounded.
CLOCKS_APART_US = 10_000
# What a child costs that is made for the next execution, on a machine that does much else.
NEXT_CHILD_US = 200_000
WORKED_US = 200_000
# Each of eight processes works for a while, and their parents do not want to know of it.
HIDDEN = (
    "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nos.makedirs('done', exist_ok=True)\n"
    "main = os.getpid()\nfor _ in range(3): os.fork()\nend = time.process_time() + 0.05\n"
    "while time.process_time() < end: pass\nif os.getpid() != main:\n    os.mkdir(f'done/{os.getpid()}')\n"
    "    os._exit(0)\nwhile len(os.listdir('done')) < 7: time.sleep(0.005)\n"
    "for name in os.listdir('done'): os.rmdir('done/' + name)\ntime.sleep(0.02)\n"
)
FORKS = (
    "import os, time\nn = 0\ntry:\n    while n < 200:\n        if os.fork() == 0: time.sleep(60)\n        n += 1\n"
    "except BlockingIOError: pass\nanswer = n"
)


async def _holds(bench: Bench, sandbox: Sandbox, limits: Limits) -> None:
    """Assert that a sandbox has just these limits."""
    written, error = await bench.ask(sandbox, FILL)
    assert (limits.disk_bytes // MIB - 2 <= written <= limits.disk_bytes // MIB, error) == (True, "ENOSPC")
    await bench.ask(sandbox, "import os\nfor f in os.listdir(): os.remove(f)\nanswer = 1")
    forked = await bench.ask(sandbox, FORKS)
    assert limits.processes - 2 <= forked <= limits.processes + limits.concurrent_executions
    # gVisor's kernel may have some more for itself.
    beyond = limits.memory_bytes + limits.disk_bytes + (64 * MIB if bench.on_gvisor else 0)
    greedy = f"x = bytearray({beyond})\nfor i in range(0, len(x), 4096): x[i] = 1\n__import__('time').sleep(10)"
    assert (await bench.run(sandbox, greedy)).status is ExecutionStatus.OUT_OF_MEMORY
    quotas = []
    for folder in bench.host.groups():
        # A spare that nobody wants any more may go meanwhile.
        with suppress(FileNotFoundError):
            quotas.append(quota_of(folder))
    assert limits.cpu_millis in quotas
    assert await bench.works(sandbox)


def quota_of(pids: Path) -> int:
    """Thousandths of a core that a group may use."""
    unified = pids / "cpu.max"
    if unified.exists():
        quota, period = unified.read_text().split()
    else:
        cpu = next(
            path for path in Path("/sys/fs/cgroup").glob(f"cpu*/{pids.parent.name}/{pids.name}/cpu.cfs_quota_us")
        )
        quota, period = cpu.read_text(), cpu.with_name("cpu.cfs_period_us").read_text()
    return int(quota) * 1000 // int(period)


async def test_spares_are_given_what_is_asked_for() -> None:
    """Less or more than they were made with; those that ask for nothing special get what they always got."""
    async with own_launcher(Isolation.STANDARD, spares=3) as bench:
        await bench.make()
        await until(lambda: len(bench.host.forkers()) == 4)
        await bench.quiet(4)
        made = set(bench.host.forkers())
        for limits in (ASKED, MORE, Limits()):
            sandbox = await bench.make(limits=limits)
            assert sandbox.failure is None
            if limits is not MORE:
                continue
            # All of them were there before they were asked for.
            assert set(bench.host.forkers()) >= made
        small = await bench.make(limits=ASKED)
        await _holds(bench, small, ASKED)
        await bench.runtime.destroy(small.environment_id)
        await _holds(bench, await bench.make(limits=MORE), MORE)


async def test_spare_is_not_made_anew_for_other_limits() -> None:
    """Who asks for other limits once neither waits for a sandbox nor has the spares of others thrown away."""
    async with own_launcher(Isolation.STANDARD, spares=2) as bench:
        await bench.make()
        await until(lambda: len(bench.host.forkers()) == 3)
        await bench.quiet(3)
        made = set(bench.host.forkers())
        for limits in (ASKED, MORE):
            await bench.make(limits=limits)
        assert made <= set(bench.host.forkers())


@pytest.mark.parametrize("limits", [ASKED, replace(ASKED, memory_bytes=64 * MIB, open_files=200)])
@pytest.mark.few_on_gvisor(limits=[ASKED])
async def test_limits_without_spares(limits: Limits, walled: Bench) -> None:
    """The same limits hold where the sandbox is made for them."""
    if walled.on_gvisor:
        # Where each process takes some memory of its own.
        limits = replace(limits, memory_bytes=limits.memory_bytes + 96 * MIB)
    await _holds(walled, await walled.make(limits=limits), limits)


async def test_usage_is_counted(walled: Bench) -> None:
    """Processor time, memory, processes and files: what the kernel counted, whatever the code says of it."""
    sandbox = await walled.make()
    before = await sandbox.usage()
    files = "open('file', 'wb').write(bytes(9 << 20))\nfor n in range(5): open(f'f{n}', 'w').close()\n"
    ran = await walled.run(sandbox, files + HIDDEN)
    assert ran.status is ExecutionStatus.COMPLETED, ran
    await walled.quiet()
    async with asyncio.timeout(60):
        # In between two children there may be nobody.
        while not (used := await sandbox.usage()).processes:  # noqa: ASYNC110 - it is seen from outside
            await asyncio.sleep(0.01)
    assert before.cpu_us is not None
    assert used.cpu_us is not None
    # Eight processes worked for 50 ms each, most of them as nobody's children; in gVisor they wait for each other in
    # that time.
    assert used.cpu_us - before.cpu_us >= (50_000 if walled.on_gvisor else 350_000)
    assert used.out_of_memory_kills == 0
    assert (used.disk_bytes or 0) - (before.disk_bytes or 0) >= 9 * MIB
    # An older gVisor counts no files.
    if used.inodes is not None or not walled.on_gvisor:
        assert (used.inodes or 0) - (before.inodes or 0) >= 6
    assert (used.memory_bytes or 0) >= 9 * MIB
    assert (used.peak_processes or 0) >= (used.processes or 0) >= 1
    await walled.run(sandbox, "import os; os.remove('file')")
    after = await sandbox.usage()
    assert (after.disk_bytes or 0) < 4 * MIB
    assert (after.peak_disk_bytes or 0) >= 9 * MIB


async def test_usage_of_the_process_class(process: Bench) -> None:
    """Nothing counts it, and nobody pretends to."""
    used = await (await process.make()).usage()
    assert {getattr(used, name) for name in type(used).__slots__} == {None}


# Twice forked, in sessions of their own: nobody's children when they end, before the code does.
DAEMONS = (
    "import os, time\nfor n in range(4):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n"
    "            end = time.process_time() + 0.05\n            while time.process_time() < end: pass\n"
    "            open(f'done{n}', 'w').close()\n        os._exit(0)\n    os.wait()\n"
    "while not all(os.path.exists(f'done{n}') for n in range(4)): time.sleep(0.005)\ntime.sleep(0.02)\n"
)
# In a process that nobody waits for, and that the end of the code kills.
THREADS = (
    "import os, threading, time\ndef work():\n    end = time.thread_time() + 0.05\n"
    "    while time.thread_time() < end: pass\n"
    "if os.fork() == 0:\n    threads = [threading.Thread(target=work) for _ in range(4)]\n"
    "    for t in threads: t.start()\n    for t in threads: t.join()\n"
    "    open('done', 'w').close()\n    time.sleep(60)\nwhile not os.path.exists('done'): time.sleep(0.005)\n"
)
ENDLESS = (
    "import os, signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    "if os.fork() == 0:\n    if os.fork(): os._exit(0)\nwhile True: pass"
)


@pytest.mark.parametrize(("code", "worked_ms"), [(HIDDEN, 400), (DAEMONS, 200), (THREADS, 200)])
async def test_work_that_is_hidden_is_counted(code: str, worked_ms: int, standard: Bench) -> None:
    """Whatever becomes of the processes, and whether or not anybody waits for them."""
    sandbox = await standard.make(limits=Limits(cpu_millis=2000))
    hello = await standard.run(sandbox, "print('hello')")
    ran = await standard.run(sandbox, code)
    assert (ran.status, ran.stderr) == (ExecutionStatus.COMPLETED, b""), ran
    assert 0.9 * worked_ms <= ran.usage.cpu_ms <= 3 * worked_ms + 500
    assert hello.usage.cpu_ms < worked_ms / 2
    used = await sandbox.usage()
    assert (used.cpu_us or 0) >= (ran.usage.cpu_ms + hello.usage.cpu_ms) * 1000 - CLOCKS_APART_US


async def test_work_of_what_was_killed_is_counted(standard: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel's count, because nobody is left to tell; no more and no less than the environment used."""
    sandbox = await standard.make()
    assert await standard.works(sandbox)
    before = (await sandbox.usage()).cpu_us or 0
    running = sandbox.execute(standard.request(ENDLESS))
    while (await sandbox.usage()).cpu_us < before + WORKED_US:  # type: ignore[operator]
        pass
    # It answers when all of it is dead, however long the kernel takes.
    monkeypatch.setattr("sandgate.sandbox.execution._CONFIRM_S", 60.0)
    running.cancel()
    ran = await running.wait()
    after = (await sandbox.usage()).cpu_us or 0
    assert ran.status is ExecutionStatus.CANCELLED
    # What is between the two is the next child's making.
    worked_us = ran.usage.cpu_ms * 1000
    assert WORKED_US - CLOCKS_APART_US <= worked_us <= after - before + CLOCKS_APART_US
    assert after - before <= worked_us + NEXT_CHILD_US


async def test_each_side_by_side_has_its_own_time(standard: Bench) -> None:
    """What one hides is not laid to the other, whichever of them has the first slot."""
    sandbox = await standard.make(limits=Limits(cpu_millis=2000))
    idle = "import os, time\nopen('idle', 'w').close()\nwhile os.path.exists('idle'): time.sleep(0.02)"
    busy = HIDDEN + "while not os.path.exists('idle'): time.sleep(0.005)\nos.remove('idle')"
    for codes in ((busy, idle), (idle, busy)):
        running = [sandbox.execute(standard.request(code)) for code in codes]
        ended = [await each.wait() for each in running]
        assert [(each.status, each.stderr) for each in ended] == [(ExecutionStatus.COMPLETED, b"")] * 2
        worked = {code: each.usage.cpu_ms for code, each in zip(codes, ended, strict=True)}
        assert worked[idle] < 200
        assert worked[busy] >= 360


async def test_memory_of_all_processes_is_measured_for_each_execution(standard: Bench) -> None:
    """The most while it ran, of all processes together; the environment remembers the most of all."""
    sandbox = await standard.make()
    small = await standard.run(sandbox, "print('hello')")
    code = (
        "import os, time\nfor n in range(3):\n    if os.fork() == 0:\n        x = b'x' * (30 << 20)\n"
        "        open(f'has{n}', 'w').close()\n        time.sleep(60)\n"
        "while not all(os.path.exists(f'has{n}') for n in range(3)): time.sleep(0.005)"
    )
    large = await standard.run(sandbox, code)
    again = await standard.run(sandbox, "print('hello')")
    assert large.status is again.status is ExecutionStatus.COMPLETED
    assert small.usage.peak_memory_bytes < 30 * MIB
    assert 90 * MIB <= large.usage.peak_memory_bytes <= 130 * MIB
    assert again.usage.peak_memory_bytes < 30 * MIB
    assert ((await sandbox.usage()).peak_memory_bytes or 0) >= large.usage.peak_memory_bytes


async def test_the_next_gateway_measures_too(standard: Bench) -> None:
    """It is given the counters with the sandbox."""
    sandbox = await standard.make()
    assert await standard.works(sandbox)
    await standard.runtime.stop(keep_sandboxes=True)
    standard.runtime = standard.host.runtime()
    await standard.runtime.start(standard.on_end)
    (adopted,) = await standard.runtime.adopt({sandbox.environment_id: Limits()})
    assert (await standard.run(adopted, HIDDEN)).usage.cpu_ms >= 360


async def test_parts_of_a_group_go_with_their_slots(standard: Bench) -> None:
    """The folders that count the time of slots apart are gone when their slots are, or at the end of the sandbox."""
    sandbox = await standard.make()
    meet = "import os, time\nopen('at-{}', 'w').close()\nwhile len(os.listdir()) < 4: time.sleep(0.005)"
    running = [sandbox.execute(standard.request(meet.format(number))) for number in range(4)]
    assert {(await each.wait()).status for each in running} == {ExecutionStatus.COMPLETED}
    (group,) = standard.host.groups("cpuacct" if ACCOUNTED_APART else "cpu")
    assert len([child for child in group.iterdir() if child.is_dir()]) == 3
    await standard.runtime.destroy(sandbox.environment_id)
    assert not standard.host.groups("cpuacct" if ACCOUNTED_APART else "cpu")


async def test_orphans_of_the_process_class_are_counted(process: Bench) -> None:
    """Without control groups: those that somebody waits for in the end."""
    sandbox = await process.make()
    ran = await process.run(sandbox, DAEMONS)
    assert (ran.status, ran.stderr) == (ExecutionStatus.COMPLETED, b""), ran
    assert ran.usage.cpu_ms >= 180


@pytest.mark.needs_gvisor
async def test_work_that_is_hidden_from_gvisor_is_counted(gvisor: Bench) -> None:
    """By the host's kernel, which counts gVisor's as well."""
    sandbox = await gvisor.make()
    assert await gvisor.works(sandbox)
    before = (await sandbox.usage()).cpu_us or 0
    ran = await gvisor.run(sandbox, HIDDEN)
    after = (await sandbox.usage()).cpu_us or 0
    assert (ran.status, ran.stderr) == (ExecutionStatus.COMPLETED, b""), ran
    # Inside, processor time goes by in steps of 10 ms, so that nobody there knows how long they worked.
    worked_us = ran.usage.cpu_ms * 1000
    assert worked_us <= after - before + CLOCKS_APART_US
    assert after - before <= worked_us + 3 * NEXT_CHILD_US
    assert worked_us >= 50_000
