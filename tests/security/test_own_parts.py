"""Attacks on the agent's own parts: its processes, sockets and pipes, and on what the next execution inherits."""

import asyncio
import os
import platform
import re
import signal
import subprocess

import pytest

from sandgate.core.execution import ExecutionRequest
from sandgate.core.states import ExecutionStatus
from tests.runtime.hosts import until
from tests.security.siege import TOOLS, Siege

pytestmark = pytest.mark.needs_root_namespaces

REFUSED = {"EPERM", "EACCES", "ESRCH", "ENOENT", "EINVAL", "EBADF", "ENOTSOCK", "ECHILD", "ENXIO"}

AGENTS = """
answer = {}
for pid in [1, os.getppid(), 2, 3]:
    if pid in (os.getpid(), 0): continue
    for number in (0, 1, 2, 3, 9, 15, 17, 18, 19, 34):
        answer[f'kill {pid} {number}'] = fails(os.kill, pid, number)
    for name in ('mem', 'maps', 'environ', 'fd', 'root', 'exe', 'cwd', 'ns/pid', 'stack', 'oom_score_adj', 'task'):
        answer[f'{name} of {pid}'] = fails(os.open, f'/proc/{pid}/{name}', os.O_RDONLY)
    answer[f'nice {pid}'] = fails(os.setpriority, os.PRIO_PROCESS, pid, 19)
    answer[f'group {pid}'] = fails(os.setpgid, pid, 0)
    answer[f'queue {pid}'] = call(129, pid, 34, ctypes.create_string_buffer(128))
    answer[f'limits {pid}'] = call(302, pid, 7, struct.pack('QQ', 0, 0), 0)
    answer[f'affinity {pid}'] = fails(os.sched_setaffinity, pid, {0})
answer['group 1'] = fails(os.killpg, 1, 9)
try: fd = os.pidfd_open(1)
except OSError: pass
else: answer['pidfd'] = fails(signal.pidfd_send_signal, fd, 9)
"""


async def test_agents_cannot_be_touched(siege: Siege) -> None:
    """Nobody inside can signal, stop, slow, look into or limit process 1, whatever the way to it."""
    found = await siege.ask(AGENTS)
    let = {name for name, error in found.items() if error not in REFUSED}
    # An old gVisor lets them be read, and priorities be set, which mean nothing there.
    harmless = {f"{name} of 1" for name in ("maps", "environ", "fd", "ns/pid", "oom_score_adj", "task")}
    assert let <= ({*harmless, "nice 1", "affinity 1"} if siege.bench.on_gvisor else set())
    # A signal to everybody reaches the sender's own processes only.
    ran = await siege.run("for n in (18, 9):\n    try: os.kill(-1, n)\n    except OSError: pass\nprint('alive')")
    assert ran.stdout == b"alive\n"
    assert await siege.bench.works(siege.attacker)


async def test_signals_that_the_kernel_sends_for_others(siege: Siege) -> None:
    """Owners of files, timers, queues and children: none of them makes the kernel signal process 1."""
    code = (
        "import fcntl\nr, w = os.pipe()\nanswer = []\n"
        "for owner in (1, -1, os.getppid()):\n    answer.append(fails(fcntl.fcntl, r, fcntl.F_SETOWN, owner))\n"
        "    fails(fcntl.fcntl, r, 10, 12)\n    fails(fcntl.fcntl, r, fcntl.F_SETFL, os.O_ASYNC)\n"
        "    os.write(w, b'x')\n"
        "a, b = socket.socketpair()\nfails(fcntl.fcntl, a, fcntl.F_SETOWN, 1)\nfails(fcntl.fcntl, a, 10, 12)\n"
        "fails(fcntl.fcntl, a, fcntl.F_SETFL, os.O_ASYNC)\nb.send(b'x')\n"
        "fails(fcntl.fcntl, 63, fcntl.F_SETOWN, 1)\nfails(fcntl.fcntl, 63, 10, 12)\n"
        "fails(fcntl.fcntl, 63, fcntl.F_SETFL, os.O_ASYNC)\n"
        # Children whose end is told with another signal, one of them orphaned.
        "for number in (12, 15, 34):\n    if libc.syscall(56, ctypes.c_long(number), 0, 0, 0, 0) == 0:\n"
        "        if libc.syscall(56, ctypes.c_long(number), 0, 0, 0, 0) == 0: time.sleep(0.02)\n        os._exit(0)\n"
        "time.sleep(0.05)\nanswer = 1"
    )
    shield = "for n in (12, 15, 34): signal.signal(n, signal.SIG_IGN)\n"
    for _round in range(2):
        assert await siege.ask(shield + code) == 1
    assert siege.attacker.failure is None


STOLEN = """
answer = []
for name in os.listdir('/proc/self/fd'):
    try: answer.append([int(name), os.readlink('/proc/self/fd/' + name)])
    except OSError: pass
"""


async def test_nothing_is_inherited(siege: Siege) -> None:
    """An execution has its own standard streams and its own channel; programs that it starts have the streams."""
    found = dict(await siege.ask(STOLEN))
    assert set(found) - {0, 1, 2, 63} <= {3, 4}
    kinds = ["host"] * 3 if siege.bench.on_gvisor else ["pipe", "pipe", "socket"]
    assert [found[number].partition(":")[0] for number in (1, 2, 63)] == kinds
    # Written in the shell, because an old gVisor does not bear what ``ls`` asks it.
    listed = await siege.run("os.execv('/bin/sh', ['sh', '-c', 'cd /proc/self/fd; echo *'])")
    assert set(listed.stdout.split()) - {b"3", b"4"} == {b"0", b"1", b"2"}


async def test_pipes_of_an_execution_beside(siege: Siege) -> None:
    """Two executions of one environment share files, and neither finds a pipe or a socket of the other."""
    write = "import os, time\nopen('on', 'w').close()\ntime.sleep(0.4)\nprint('mine')"
    beside = siege.attacker.execute(ExecutionRequest(write, 60))
    steal = (
        "while not os.path.exists('on'): time.sleep(0.005)\n"
        "for pid, fd in [(pid, fd) for pid in range(1, 400) for fd in (0, 1, 2, 3, 63)]:\n"
        "        if pid == os.getpid(): continue\n"
        "        try: os.write(os.open(f'/proc/{pid}/fd/{fd}', 2), b'forged')\n"
        "        except OSError: pass\nanswer = [len([n for n in os.listdir('/proc') if n.isdigit()])]"
    )
    # In gVisor process 1 is seen.
    assert await siege.ask(steal) == [2 if siege.bench.on_gvisor else 1]
    assert (await beside.wait()).stdout == b"mine\n"


# Said on the channel to the gateway by code that ends by itself afterwards.
CHANNEL = {
    "frames of a forker": "[os.write(63, b'X' + struct.pack('!QiQQQ', n, 0, 0, 0, 0)) for n in range(200)]",
    "children": "[os.write(63, b'C' + struct.pack('!Q', n)) for n in range(200)]",
    "outputs without end": "os.write(63, b'O' + struct.pack('!I', 2**32 - 1) + b'x' * 60_000)",
    "outputs of nothing": "[os.write(63, b'O' + struct.pack('!I', 0)) for _ in range(100)]",
    "last words": "os.write(63, b'\\x01' * 1000 + b'\\x02' * 1000)",
    "half a length": "os.write(63, b'O\\0\\0')",
    "descriptors": (
        "s = socket.socket(fileno=63)\nm = os.memfd_create('x')\nos.truncate(m, 1 << 20)\n"
        "for _ in range(200): fails(socket.send_fds, s, [b'x'], [m, 0, 1])"
    ),
    "itself": "s = socket.socket(fileno=63)\nfor _ in range(50): fails(socket.send_fds, s, [b'x'], [63])",
    "out of band": "s = socket.socket(fileno=63)\nfails(s.send, b'x', socket.MSG_OOB)",
    "half closed": "s = socket.socket(fileno=63)\nfor how in (0, 1, 2):\n    s.shutdown(how)\n    fails(s.send, b'x')",
    "by many": "import threading\n"
    "t = [threading.Thread(target=lambda: os.write(63, b'x' * 100)) for _ in range(20)]\n"
    "[x.start() for x in t]; [x.join() for x in t]",
    "by a child that stays": "if os.fork() == 0:\n    os.set_blocking(63, False)\n    while True:\n"
    "        try: os.write(63, b'x')\n        except OSError: time.sleep(0.001)\n",
}


@pytest.mark.parametrize("name", CHANNEL)
@pytest.mark.few_on_gvisor(name=["frames of a forker", "descriptors", "half closed", "by a child that stays"])
async def test_forged_channel(name: str, siege: Siege) -> None:
    """What is said there changes the answer of the one who says it, if anything; the next one is as good as new."""
    ran = await siege.run(f"os.set_blocking(63, False)\n{CHANNEL[name]}\nos.write(1, b'said')\nos._exit(7)")
    assert (ran.status, ran.exit_code, ran.stdout) == (ExecutionStatus.FAILED, 7, b"said")
    assert await siege.bench.works(siege.attacker)


async def test_frames_on_standard_output(siege: Siege) -> None:
    """Output is output, whatever it looks like."""
    frames = b"X" + b"\0" * 36 + b"R" + b"C" + b"\0" * 8 + b'{"name": "E", "value": "", "traceback": ""}'
    ran = await siege.run(f"os.write(1, {frames!r})\nos.write(2, {frames!r})")
    assert (ran.status, ran.exit_code) == (ExecutionStatus.COMPLETED, 0)
    assert (ran.stdout, ran.stderr) == (frames, frames)


async def test_answer_before_the_question(siege: Siege) -> None:
    """What an execution leaves for its successor to say: nothing of it is there when that one begins."""
    poison = (
        "open('sitecustomize.py', 'w').write('raise SystemExit(9)')\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        while True:\n"
        "            try: os.write(63, b'{}')\n            except OSError: pass\n    os._exit(0)\n"
        "import threading\nthreading.Thread(target=time.sleep, args=(50,), daemon=True).start()\nos._exit(0)"
    )
    for _round in range(3):
        assert (await siege.run(poison)).exit_code == 0
        assert await siege.bench.works(siege.attacker)


# Threads take a number each, and are made some times as fast as processes.
USE_UP = """
open('on', 'w').close()
import _thread, threading
ready, last = _thread.allocate_lock(), 0
def look():
    global last
    number = threading.get_native_id()
    if number < last: open('again', 'w').close()
    last = number
    ready.release()
for _ in range(1_000_000):
    ready.acquire()
    if os.path.exists('again'): break
    try: _thread.start_new_thread(look, ())
    except RuntimeError:
        ready.release()
        time.sleep(0.001)
"""


# From Linux 6.14 on each namespace has a largest number, and before only the machine.
HAS_OWN_NUMBERS = tuple(map(int, re.findall(r"\d+", platform.release())[:2])) >= (6, 14)
_FEW_NUMBERS, _USED_UP_AT_MOST = 600, 100_000


async def _can_come_again(siege: Siege) -> bool:
    """Whether an execution can use up all numbers within seconds. gVisor has too many."""
    if siege.bench.on_gvisor:
        return False
    most = int(await siege.bench.ask(siege.attacker, "answer = open('/proc/sys/kernel/pid_max').read()"))
    return HAS_OWN_NUMBERS or most <= _USED_UP_AT_MOST


def _let_few_numbers(pid: int) -> None:
    """In the namespace of a process, and nowhere else."""
    lower = f"echo {_FEW_NUMBERS} > /proc/sys/kernel/pid_max"
    subprocess.run(["nsenter", "-t", str(pid), "-p", "sh", "-c", lower], check=True, timeout=60)


async def test_numbers_of_processes_that_come_again(siege: Siege) -> None:
    """However many processes come and go, a kill hits the execution that it is for, and no other."""
    spin = "while True:\n    pid = os.fork()\n    if pid == 0: os._exit(0)\n    os.waitpid(pid, 0)"
    comes_again = await _can_come_again(siege)
    first = USE_UP if comes_again else ""
    doomed = [siege.attacker.execute(ExecutionRequest(TOOLS + before + spin, 300)) for before in (first, "")]
    if comes_again:
        wait = "import os, time\nwhile not os.path.exists('WHAT'): time.sleep(0.002)\nanswer = True"
        assert await siege.bench.ask(siege.attacker, wait.replace("WHAT", "on"))
        if HAS_OWN_NUMBERS:
            for pid in siege.bench.host.forkers():
                _let_few_numbers(pid)
        assert await siege.bench.ask(siege.attacker, wait.replace("WHAT", "again"))
    staying = siege.attacker.execute(ExecutionRequest("import time\ntime.sleep(1.2)\nprint('stayed')", 60))
    await asyncio.sleep(0.4)
    for each in doomed:
        each.cancel()
    assert {(await each.wait()).status for each in doomed} == {ExecutionStatus.CANCELLED}
    assert (await staying.wait()).stdout == b"stayed\n"
    await siege.everybody_answers()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_agent_that_falls(number: int, siege: Siege) -> None:
    """If process 1 of one environment, or the kernel below it, dies or stands still, the others do not even notice."""
    before = set(siege.bench.host.agents())
    victim = await siege.bench.make(lifetime_s=120.0)
    assert await siege.bench.works(victim)
    pid = max(set(siege.bench.host.agents()) - before)
    running = victim.execute(ExecutionRequest("import time; time.sleep(60)", 0.4))
    os.kill(pid, number)
    for _round in range(5):
        await siege.everybody_answers()
    ended = await running.wait()
    assert ended.status in (ExecutionStatus.LOST, ExecutionStatus.TIMED_OUT)
    await siege.bench.runtime.destroy(victim.environment_id)
    await until(lambda: siege.bench.count_groups() == 2)
