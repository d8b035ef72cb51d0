"""The process class: what an unprivileged process keeps itself from, and, plainly, which promises do not hold there."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.seccomp import find_library
from sandgate_agent import landlock
from tests.runtime.hosts import Bench
from tests.runtime.kernel import numbers
from tests.security.siege import TOOLS

FENCE = landlock.find_version()
fenced = pytest.mark.skipif(not FENCE, reason="this kernel has no Landlock, or it is switched off")
filtered = pytest.mark.skipif(find_library() is None, reason="libseccomp is not installed")


@filtered
async def test_kernel_is_filtered(process: Bench) -> None:
    """Promise 2, in part: no privileges can be gained, and the same small part of the kernel is reached."""
    n = numbers()
    names = ("ptrace", "unshare", "bpf", "io_uring_setup", "keyctl", "perf_event_open", "userfaultfd", "mount", "setns")
    code = (
        f"answer = [call(n, *[-1] * 6) for n in {[n[name] for name in names]}]\n"
        "status = dict(l.split(':', 1) for l in open('/proc/self/status').read().splitlines())\n"
        "answer = [answer, status['NoNewPrivs'].strip(), status['Seccomp'].strip(), fails(socket.socketpair, 30, 5)]"
    )
    refused, privileges, seccomp, pair = await process.ask(await process.make(), TOOLS + code)
    assert set(refused) == {"EPERM"}
    assert (privileges, seccomp, pair) == ("1", "2", "EPERM")


async def test_no_core_dump(process: Bench) -> None:
    """Promise 3, in part: nothing that crashes has the host do anything."""
    code = "import resource\nanswer = resource.getrlimit(resource.RLIMIT_CORE)"
    assert await process.ask(await process.make(), code) == [1, 1]


@fenced
async def test_files_outside_its_folder(process: Bench, tmp_path: Path) -> None:
    """Promise 1, in part: files of the host, of the service and of a neighbour are neither read nor written."""
    secret = tmp_path / "secret"
    secret.write_text("planted")
    secret.chmod(0o666)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o777)
    sandbox, neighbour = await process.make(), await process.make()
    theirs = await process.ask(neighbour, "import os\nopen('mine', 'w').write('x')\nanswer = os.getcwd() + '/mine'")
    code = TOOLS + (
        f"answer = [[fails(open, p) for p in ({str(secret)!r}, {theirs!r}, '/proc/1/environ')],\n"
        f"  [fails(open, p, 'w') for p in ({str(secret)!r}, {theirs!r}, {str(tmp_path / 'new')!r},\n"
        "     '/tmp/sandgate-new', '/var/tmp/sandgate-new', os.__file__)], fails(os.remove, "
        f"{theirs!r}), fails(os.rename, 'x', {str(tmp_path / 'x')!r}), fails(os.listdir, {str(tmp_path)!r}),\n"
        "  open(os.__file__).read(1) != '', fails(open, 'own', 'w'), fails(open, '/dev/null', 'w')]"
    )
    read, written, *rest = await process.ask(sandbox, "open('x', 'w').close()\n" + code)
    assert set(read) == {"EACCES"}
    assert set(written) <= {"EACCES", "EROFS"}
    assert set(rest[:3]) <= {"EACCES", "EXDEV", "ENOENT"}
    assert rest[3:] == [True, None, None]
    assert await process.works(neighbour)


@pytest.mark.skipif(FENCE < 6, reason="this kernel's Landlock keeps nobody from signals")
async def test_signals_to_others(process: Bench) -> None:
    """Promise 1, in part: processes outside, of the same user though they are, cannot be signalled or looked into."""
    sandbox, neighbour = await process.make(), await process.make()
    running = neighbour.execute(process.request("import time\ntime.sleep(0.5)\nprint('on')"))
    others = [os.getpid(), process.host.process.pid, *process.host.zygotes(), *process.host.processes()]
    code = TOOLS + (
        f"own = set(map(int, os.popen('echo $PPID').read().split())) | {{os.getpid(), os.getppid()}}\n"
        f"answer = sorted({{str(fails(os.kill, p, 9)) for p in {others} if p not in own}}),"
        f" sorted({{str(fails(open, f'/proc/{{p}}/mem')) for p in {others} if p not in own}})"
    )
    killed, read = await process.ask(sandbox, code)
    assert set(killed) <= {"EPERM", "ESRCH"}
    assert set(read) <= {"EPERM", "EACCES", "ENOENT"}
    assert (await running.wait()).stdout == b"on\n"
    assert await process.works(neighbour)


async def test_what_does_not_hold(process: Bench) -> None:
    """Promises 1 and 4 do not: processes of others are seen, and the network is the machine's own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = (
            "import os, socket\n"
            f"reached = socket.create_connection(('127.0.0.1', {server.getsockname()[1]})) is not None\n"
            "seen = sum(name.isdigit() for name in os.listdir('/proc'))\n"
            "answer = [reached, seen > 2, os.uname().nodename]"
        )
        reached, sees_others, name = await process.ask(await process.make(), code)
    assert (reached, sees_others, name) == (True, True, os.uname().nodename)


async def test_memory_is_not_held_together(process: Bench) -> None:
    """Promise 3 holds for each process by itself only; nothing counts what they take together."""
    sandbox = await process.make()
    code = "x = bytearray(1 << 44)"
    ran = await process.run(sandbox, code)
    assert (ran.status, b"MemoryError" in ran.stderr) == (ExecutionStatus.FAILED, True)
    used = await sandbox.usage()
    assert used.memory_bytes is None


async def test_forks_take_more_than_the_environment_has(process: Bench) -> None:
    """Promise 3 does not hold of them together: two that each take less than the limit are not ended."""
    limits = Limits(memory_bytes=64 * MIB, disk_bytes=16 * MIB)
    sandbox, neighbour = await process.make(limits=limits), await process.make()
    code = TOOLS + (
        "ends = []\nfor _ in range(2):\n    r, w = os.pipe()\n    if os.fork() == 0:\n"
        "        x = bytearray(b'x' * (48 << 20))\n        os.write(w, b'has')\n        time.sleep(60)\n"
        "    ends.append(r)\nanswer = [os.read(r, 3).decode() for r in ends]"
    )
    assert await process.ask(sandbox, code) == ["has", "has"]
    assert await process.works(sandbox)
    assert await process.works(neighbour)


async def test_code_that_stops_its_agent(process: Bench) -> None:
    """Promise 6 does not hold against it where signals are not fenced: its environment may be lost, and no other."""
    sandbox, neighbour = await process.make(), await process.make()
    stop = TOOLS + "print(fails(os.kill, os.getppid(), signal.SIGSTOP), flush=True)\ntime.sleep(60)"
    async with asyncio.timeout(60):
        ran = await sandbox.execute(process.request(stop, 1.0)).wait()
    if ran.stdout == b"EPERM\n":
        assert ran.status is ExecutionStatus.TIMED_OUT
        assert await process.works(sandbox)
    else:
        assert ran.status in (ExecutionStatus.TIMED_OUT, ExecutionStatus.LOST), ran
    assert await process.works(neighbour)
    async with asyncio.timeout(60):
        await process.runtime.check()
        await process.runtime.destroy(sandbox.environment_id)
