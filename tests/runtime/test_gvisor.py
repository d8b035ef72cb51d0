"""What holds in the gvisor class in particular: who runs as whom, limits, ends, and what is left of it."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sandgate.core.errors import LauncherUnavailable
from sandgate.core.ids import make_environment_id
from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus, Isolation
from sandgate.sandbox.launcher.client import LauncherClient
from tests.runtime.hosts import (
    Bench,
    LauncherHost,
    available_versions,
    descendants,
    launcher_host,
    start_launcher,
    until,
)

pytestmark = pytest.mark.needs_gvisor
_IDS = range(1_700_000_000, 1_700_000_000 + 65_536)
SMALL = Limits(memory_bytes=64 * MIB, disk_bytes=16 * MIB, processes=16)


# At a pace that leaves somebody the time to notice.
GROWS = "import time\nkept = []\nwhile True:\n    kept.append(bytearray(1 << 20))\n    time.sleep(0.003)"


def ids(pid: int) -> set[int]:
    """The user and group ids of a process, as the host sees them."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {int(word) for line in lines if line.startswith(("Uid:", "Gid:")) for word in line.split()[1:]}


def still_there(pids: Iterable[int]) -> list[int]:
    """Those that have not ended meanwhile, as what starts a sandbox does."""
    return [pid for pid in pids if Path(f"/proc/{pid}/root").exists()]


def mounts() -> list[str]:
    """What is mounted on the host."""
    return Path("/proc/self/mountinfo").read_text().splitlines()


async def test_nothing_of_it_is_root(gvisor: Bench) -> None:
    """Neither runsc, nor its file server, nor gVisor's kernel: they have two ids, and no network but their own."""
    before = set(descendants(gvisor.host.process.pid))
    for _each in range(2):
        assert await gvisor.works(await gvisor.make())
    pids = still_there(set(descendants(gvisor.host.process.pid)) - before)
    assert len(pids) > 6
    found = {each for pid in pids for each in ids(pid)}
    # Neither has an id of the other's.
    assert len(found) == 4
    assert found <= set(_IDS)
    networks = {os.readlink(f"/proc/{pid}/ns/net") for pid in pids}
    assert os.readlink("/proc/self/ns/net") not in networks
    shown = {name for pid in pids for name in os.listdir(f"/proc/{pid}/root")}
    assert shown.isdisjoint({"boot", "home", "opt", "srv", "var", "work"})


async def test_code_has_a_kernel_of_its_own_and_no_powers(gvisor: Bench) -> None:
    """No capability, nobody's but its own files and processes, read-only programs, loopback only."""
    sandbox = await gvisor.make()
    code = """
import os, socket
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
answer = {
    "kernel": os.uname().release, "ids": os.getresuid() + os.getresgid(), "groups": os.getgroups(),
    "capabilities": status["CapEff"].strip(), "seccomp": status["Seccomp"].strip(), "cwd": os.getcwd(),
    "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit())[:1],
    "links": [name for _number, name in socket.if_nameindex()], "host": socket.gethostname(), "refused": [],
}
for path in ("/usr/x", "/etc/x", "/x", "/dev/x", "/proc/x", "/root/x"):
    try:
        open(path, "w")
    except OSError:
        answer["refused"].append(path)
for call in ("os.setuid(0)", "os.chroot('/')", "os.kill(1, 9)", "os.mknod('n', 0o20666, 0x103)"):
    try:
        eval(call)
        answer["refused"].append("not refused")
    except OSError:
        pass
"""
    found = await gvisor.ask(sandbox, code)
    assert found.pop("kernel") != os.uname().release
    assert found == {
        "ids": [1000] * 6, "groups": [], "capabilities": "0" * 16, "seccomp": "2", "cwd": "/workspace",
        "processes": [1], "links": ["lo"], "host": "sandbox",
        "refused": ["/usr/x", "/etc/x", "/x", "/dev/x", "/proc/x", "/root/x"],
    }  # fmt: skip
    assert await gvisor.works(sandbox)


async def test_process_1_has_nothing_to_tell(gvisor: Bench) -> None:
    """Its variables can be read where gVisor is old; they are the ones that code has anyway."""
    sandbox = await gvisor.make()
    code = """
import os
try:
    told = open("/proc/1/environ", "rb").read().split(b"\\0")
except OSError:
    told = []
own = {os.fsencode(f"{name}={value}") for name, value in os.environ.items()}
answer = [os.fsdecode(each) for each in told if each and each not in own]
"""
    assert await gvisor.ask(sandbox, code) == []


async def test_memory_that_runs_out_ends_who_has_it(gvisor: Bench) -> None:
    """Not the sandbox, nor what runs beside it; again and again.

    That needs somebody who looks in time, which a busy machine does not give each time.
    """
    for _attempt in range(4):
        if await _ends_who_has_it(gvisor):
            return
    pytest.fail("what ran beside it ended with it, each time")


async def _ends_who_has_it(gvisor: Bench) -> bool:
    sandbox = await gvisor.make(limits=SMALL)
    assert (await gvisor.run(sandbox, "open('kept', 'w').write('kept')")).status is ExecutionStatus.COMPLETED
    beside = sandbox.execute(gvisor.request("import time\nwhile True: time.sleep(0.01)", 200))
    for _round in range(2):
        ran = await gvisor.run(sandbox, GROWS)
        assert (ran.status, ran.exit_code) == (ExecutionStatus.OUT_OF_MEMORY, None)
        if sandbox.failure is not None or beside.ended:  # type: ignore[attr-defined]
            assert (await beside.wait()).status in (ExecutionStatus.OUT_OF_MEMORY, ExecutionStatus.LOST)
            return False
    beside.cancel()
    assert (await beside.wait()).status is ExecutionStatus.CANCELLED
    assert (await gvisor.run(sandbox, "print(open('kept').read())")).stdout == b"kept\n"
    return True


async def test_memory_that_is_taken_at_once(gvisor: Bench) -> None:
    """Is the same to who asked for it, whether or not the sandbox survives it; its neighbour does."""
    sandbox, neighbour = await gvisor.make(limits=SMALL), await gvisor.make(limits=SMALL)
    ran = await gvisor.run(sandbox, "len(bytearray(4 << 30))")
    assert ran.status is ExecutionStatus.OUT_OF_MEMORY
    assert sandbox.failure in (None, "it ran out of memory")
    assert await gvisor.works(neighbour)


async def test_memory_that_is_granted_can_be_used(gvisor: Bench) -> None:
    """All of it, whatever gVisor's kernel needs for itself."""
    sandbox = await gvisor.make(limits=SMALL)
    ran = await gvisor.run(sandbox, "print(len(bytearray(56 << 20)))")
    assert (ran.status, ran.stdout) == (ExecutionStatus.COMPLETED, b"58720256\n")
    assert ran.usage.peak_memory_bytes > 56 * MIB


async def test_a_full_disk_is_an_error_to_the_code(gvisor: Bench) -> None:
    """And to nobody else; what was written can be removed."""
    sandbox = await gvisor.make(limits=SMALL)
    fill = "f = open('full', 'wb', 0)\nfor _ in range(64): f.write(bytes(1 << 20))"
    ran = await gvisor.run(sandbox, fill)
    assert (ran.status, ran.error and ran.error.name) == (ExecutionStatus.FAILED, "OSError")
    assert b"No space left" in ran.stderr
    assert (
        await gvisor.run(sandbox, "import os\nos.unlink('full')\nopen('x', 'wb').write(bytes(8 << 20))")
    ).exit_code == 0


async def test_a_storm_of_forks_is_bounded_and_ends(gvisor: Bench) -> None:
    """Forks fail at the limit, and when the execution ends so does every process of it."""
    sandbox = await gvisor.make(limits=replace(SMALL, memory_bytes=256 * MIB))
    storm = """
import os, time
made = 0
try:
    while made < 100:
        if os.fork() == 0:
            os.setsid()
            time.sleep(1000)
        made += 1
except OSError:
    print(made)
"""
    for _round in range(2):
        ran = await gvisor.run(sandbox, storm)
        assert ran.status is ExecutionStatus.COMPLETED
        assert 8 <= int(ran.stdout) < 16
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    started = time.perf_counter()
    assert (await gvisor.run(sandbox, bomb, 0.5)).status is ExecutionStatus.TIMED_OUT
    assert time.perf_counter() - started < 40
    look = "import os\nprint(sorted(int(name) for name in os.listdir('/proc') if name.isdigit())[2:])"
    assert (await gvisor.run(sandbox, look)).stdout == b"[]\n"


async def test_deadlines_and_floods(gvisor: Bench) -> None:
    """Both are ended from outside, whatever the code does against it."""
    sandbox = await gvisor.make(limits=Limits(output_bytes=4096, drained_output_bytes=8 * MIB))
    stubborn = (
        "import signal\nfor s in signal.valid_signals() - {9, 19}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass"
    )
    started = time.perf_counter()
    ran = await gvisor.run(sandbox, stubborn, 0.2)
    assert ran.status is ExecutionStatus.TIMED_OUT
    assert 0.2 <= time.perf_counter() - started < 40
    flood = await gvisor.run(sandbox, "import os\nwhile True: os.write(1, b'x' * 65536)")
    assert (flood.status, flood.stdout, flood.stdout_truncated) == (ExecutionStatus.OUTPUT_LIMIT, b"x" * 4096, True)
    assert await gvisor.works(sandbox)


async def test_slots_share_files_and_not_processes(gvisor: Bench) -> None:
    """Executions side by side see the same folder, and nobody's processes but their own."""
    sandbox = await gvisor.make()
    code = """
import os, time
open(f"here-{os.getpid()}-{time.monotonic_ns()}", "w").close()
while len([name for name in os.listdir(".") if name.startswith("here-")]) < 3: time.sleep(0.01)
print(len([name for name in os.listdir("/proc") if name.isdigit()]))
"""
    ran = await asyncio.gather(*(gvisor.run(sandbox, code) for _slot in range(3)))
    assert [each.stdout for each in ran] == [b"2\n"] * 3


async def spare_group(host: LauncherHost, made: int) -> Path:
    """The control group of the spare beside so many sandboxes, when it is ready."""
    await until(lambda: len(host.groups()) == made + 1, what=host.groups)
    spare = host.groups()[-1]
    await until(lambda: len((spare / "cgroup.procs").read_text().split()) > 3)
    # waits: nobody is told when a spare is ready, and one that is not is of no use.
    await asyncio.sleep(0.5)
    return spare


async def until_taken(host: LauncherHost, spare: Path, use: Callable[[], Awaitable[None]]) -> None:
    """Use sandboxes until that one was it: one that is not ready yet is so by the time that another one is made."""
    for _round in range(5):
        await use()
        if spare not in host.groups():
            return
    pytest.fail(f"the spare in {spare} was not taken")


async def test_spares_are_taken_and_made_again() -> None:
    """What was made beforehand is there at once, with the limits that were asked for, and is nobody else's."""
    with launcher_host(Isolation.GVISOR, gvisor_spares=1) as host:
        runtime = host.runtime()
        bench = Bench(host, runtime)
        await runtime.start(bench.on_end)
        await bench.make()

        async def use() -> None:
            sandbox = await bench.make()
            assert await bench.works(sandbox)
            await runtime.destroy(sandbox.environment_id)

        for _round in range(2):
            await until_taken(host, await spare_group(host, 1), use)
        await runtime.stop(keep_sandboxes=False)


async def test_a_launcher_that_dies_takes_everything_along() -> None:
    """Its processes at once, their control groups with the next start; whoever ran something there is told."""
    with launcher_host(Isolation.GVISOR) as host:
        runtime = host.runtime()
        bench = Bench(host, runtime)
        await runtime.start(bench.on_end)
        sandbox = await bench.make()
        running = sandbox.execute(bench.request("while True: pass", 60))
        pids = list(descendants(host.process.pid))
        host.process.send_signal(signal.SIGKILL)
        host.process.wait()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        assert not [line for line in mounts() if "jail" in line]
        host.process = start_launcher(host.config)
        assert (await running.wait()).status is ExecutionStatus.LOST
        await until(lambda: bench.ended)
        assert bench.ended == [(sandbox.environment_id, "the launcher died and took its sandboxes along")]
        await until(lambda: host.groups() == [], what=host.groups)
        await until(lambda: os.listdir(host.config.run_folder / "jail") == [])
        await runtime.stop(keep_sandboxes=False)


async def test_a_late_answer_is_not_the_next_gateways(gvisor: Bench) -> None:
    """What one gateway has asked for, and did not wait for, is no answer to what the next one asks by that number."""
    sandbox = await gvisor.make(lifetime_s=60.0)
    await gvisor.runtime.stop(keep_sandboxes=True)
    first, second = (LauncherClient(lambda *_ended: None, lambda: None) for _each in range(2))
    first.connect(gvisor.host.config.socket_path)
    asking = asyncio.create_task(first.request("listen", limit_s=60, environment_id=sandbox.environment_id))
    await asyncio.sleep(0)
    first.close()
    with pytest.raises(LauncherUnavailable):
        await asking
    second.connect(gvisor.host.config.socket_path)
    answer = await second.request(
        "create", limit_s=60, environment_id=make_environment_id(), isolation="gvisor", lifetime_s=60.0,
        template=f"python-{available_versions()[-1]}", limits=asdict(Limits()),
    )  # fmt: skip
    assert "counters" in answer.values
    answer.close()
    second.close()
    await gvisor.runtime.start(gvisor.on_end)
    await gvisor.runtime.adopt({})
