"""What environments are counted for, and limits that are asked for: set on what was made ahead, and held."""

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
    greedy = f"x = bytearray({limits.memory_bytes + limits.disk_bytes})\nfor i in range(0, len(x), 4096): x[i] = 1"
    assert (await bench.run(sandbox, greedy)).status is ExecutionStatus.OUT_OF_MEMORY
    quotas = [_quota(folder) for folder in bench.host.groups()]
    assert limits.cpu_millis in quotas
    assert await bench.works(sandbox)


def _quota(pids: Path) -> int:
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
        assert sum("nobody asks for" in line for line in bench.host.log().splitlines()) == 0


@pytest.mark.parametrize("limits", [ASKED, replace(ASKED, memory_bytes=64 * MIB, open_files=200)])
async def test_limits_without_spares(limits: Limits, standard: Bench) -> None:
    """The same limits hold where the sandbox is made for them."""
    await _holds(standard, await standard.make(limits=limits), limits)


async def test_usage_is_counted(standard: Bench) -> None:
    """Processor time, memory, processes and files: what the kernel counted, whatever the code says of it."""
    sandbox = await standard.make()
    before = await sandbox.usage()
    work = (
        "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "open('file', 'wb').write(bytes(9 << 20))\nfor n in range(5): open(f'f{n}', 'w').close()\n"
        "pids = [os.fork() for _ in range(3)]\nend = time.process_time() + 0.1\n"
        "while time.process_time() < end: pass\nif 0 in pids: os._exit(0)\ntime.sleep(0.5)"
    )
    ran = await standard.run(sandbox, work)
    assert ran.status is ExecutionStatus.COMPLETED, ran
    used = await sandbox.usage()
    assert before.cpu_us is not None
    assert used.cpu_us is not None
    # Eight processes worked for a tenth of a second each, most of them as nobody's children.
    assert used.cpu_us - before.cpu_us >= 700_000
    assert (used.disk_bytes or 0) - (before.disk_bytes or 0) >= 9 * MIB
    assert (used.inodes or 0) - (before.inodes or 0) >= 6
    assert (used.memory_bytes or 0) >= 9 * MIB
    assert (used.peak_processes or 0) >= (used.processes or 0) >= 1
    assert used.out_of_memory_kills == 0
    await standard.run(sandbox, "import os; os.remove('file')")
    after = await sandbox.usage()
    assert (after.disk_bytes or 0) < 4 * MIB
    assert (after.peak_disk_bytes or 0) >= 9 * MIB


async def test_usage_of_the_process_class(process: Bench) -> None:
    """Nothing counts it, and nobody pretends to."""
    used = await (await process.make()).usage()
    assert {getattr(used, name) for name in type(used).__slots__} == {None}
