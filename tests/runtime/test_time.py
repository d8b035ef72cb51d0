"""Deadlines are kept from outside, whatever the code does, and nothing of an execution outlives it."""

import asyncio
import time

import pytest

from sandgate.core.execution import ExecutionRequest, Termination
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.base import Sandbox
from tests.runtime.hosts import Bench, Lag
from tests.runtime.only_inside import ONLY_INSIDE

pytestmark = pytest.mark.attack

# On a busy machine code may not have begun when its time is over, or the machine is busy just then: it is tried again.
TIMEOUTS_S = (0.2, 0.2, 2.0, 2.0, 20.0)
# Of each on a machine where others want the processors, and of the quickest of some.
LATE_S, SOON_S = 1.0, 0.05

# Each prints "before" without a line's end first and would go on for ever.
STUBBORN = {
    "loops": "while True: pass",
    "sleeps": "import time; time.sleep(1e9)",
    "ignores a polite end": "import signal, time\nfor s in (15, 2, 1): signal.signal(s, signal.SIG_IGN)\n"
    "while True: time.sleep(1)",
    "ignores every signal": "import signal, time\nfor s in signal.valid_signals() - {9, 19}:\n"
    "    signal.signal(s, signal.SIG_IGN)\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
    "while True: time.sleep(1)",
    "swallows exceptions": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "forks": "import os, time\nfor _ in range(30):\n    if os.fork() == 0: break\nwhile True: time.sleep(1)",
    "forks loops": "import os\nfor _ in range(8):\n    if os.fork() == 0: break\nwhile True: pass",
    "leaves daemons": "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid()\n"
    "        if os.fork() == 0: time.sleep(1000)\n        os._exit(0)\nwhile True: time.sleep(1)",
    "matches": "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    "sits in a library": "import ctypes; ctypes.PyDLL(None).usleep(2_000_000_000)",
    "sits in arithmetic": "pow(3, 5 ** 12, 7 ** 1_000_000)",
    "sleeps at exit": "import atexit, time; atexit.register(time.sleep, 1000)",
    "loops in a destructor": "class D:\n    def __del__(self):\n        while True: pass\nd = D()",
    "loops in a thread": "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f).start()",
    "stops itself": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "stops its group": "import os, signal\nif os.fork() == 0:\n    import time; time.sleep(1000)\n"
    "os.killpg(0, signal.SIGSTOP)",
    "becomes a shell": "import os; os.execv('/bin/sh', ['sh', '-c', 'sleep 1000'])",
    "waits for a shell": "import os; os.system('while :; do :; done')",
    "closes everything": "import os\nos.closerange(0, 1000)\nwhile True: pass",
    "is interrupted without a pause": "import signal\n"
    "signal.signal(signal.SIGALRM, lambda *_: None)\nsignal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)\n"
    "while True: pass",
}


async def _end(sandbox: Sandbox, code: str, timeout_s: float) -> tuple[Termination, float]:
    """How it ended, and how much later than it should."""
    started = time.perf_counter()
    ran = await sandbox.execute(ExecutionRequest(code, timeout_s)).wait()
    late_s = time.perf_counter() - started - timeout_s
    assert ran.duration_s >= timeout_s
    return ran, late_s


HAS_BEGUN = "import os\nanswer = os.path.exists('begun')\nif answer: os.remove('begun')"


async def _check_end(bench: Bench, sandbox: Sandbox, code: str, sandboxes: int = 1) -> None:
    """Assert that code which had begun ends when its time is over, with what it had printed, and leaves nothing."""
    begin = f"{ONLY_INSIDE}print('before', end='')\nopen('begun', 'w').close()\n"
    for timeout_s in TIMEOUTS_S:
        ran, late_s = await _end(sandbox, begin + code, timeout_s)
        assert ran.status is ExecutionStatus.TIMED_OUT
        await bench.quiet(sandboxes)
        has_begun = await bench.ask(sandbox, HAS_BEGUN)
        if has_begun and late_s <= LATE_S:
            break
    assert (has_begun, late_s <= LATE_S) == (True, True), late_s
    assert (ran.stdout, ran.stderr, ran.exit_code, ran.error) == (b"before", b"", None, None)


# Those that make more of gVisor's kernel than a loop or a sleep does.
_IN_GVISOR = [
    "ignores every signal", "forks loops", "stops its group", "is interrupted without a pause",
]  # fmt: skip


@pytest.mark.parametrize("name", STUBBORN)
@pytest.mark.few_on_gvisor(name=_IN_GVISOR)
async def test_deadline(name: str, bench: Bench) -> None:
    """The answer comes after the deadline, with what was printed, and the sandbox works on."""
    sandbox = await bench.make()
    assert await bench.works(sandbox)
    await bench.quiet()
    await _check_end(bench, sandbox, STUBBORN[name])
    assert await bench.works(sandbox)


async def test_answer_comes_soon_after_the_deadline(bench: Bench) -> None:
    """At most 50 ms, when nobody else wants the processors just then."""
    sandbox = await bench.make()
    deadline = time.monotonic() + 120
    while (await _end(sandbox, STUBBORN["loops"], 0.1))[1] > SOON_S:
        assert time.monotonic() < deadline


@pytest.mark.needs_root_namespaces
@pytest.mark.parametrize("body", ["pass", "os.setsid()", "os.setsid(); os.fork()"])
@pytest.mark.few_on_gvisor(body=["os.setsid()"])
async def test_storm_of_forks(body: str, walled: Bench) -> None:
    """Processes that fork as fast as they can, each of them, end with their execution."""
    storm = (
        "import os, time\nend = time.monotonic() + 30\n"
        f"while time.monotonic() < end:\n    try:\n        if os.fork() == 0:\n            {body}\n"
        "    except OSError: pass"
    )
    sandbox, neighbour = await walled.make(), await walled.make()
    assert await walled.works(neighbour)
    await walled.quiet(2)
    await _check_end(walled, sandbox, storm, 2)
    assert await walled.works(sandbox)


@pytest.mark.parametrize("delay_s", [0, 0.001, 0.02, 0.1])
@pytest.mark.parametrize("name", ["loops", "leaves daemons", "ignores every signal", "becomes a shell"])
@pytest.mark.few_on_gvisor(name=["leaves daemons"], delay_s=[0, 0.1])
async def test_cancel(name: str, delay_s: float, bench: Bench) -> None:
    """A cancelled execution ends at once, at whatever moment, with nothing left of it."""
    sandbox = await bench.make()
    assert await bench.works(sandbox)
    for _attempt in range(3):
        execution = sandbox.execute(ExecutionRequest(ONLY_INSIDE + STUBBORN[name], 60))
        await asyncio.sleep(delay_s)
        started = time.perf_counter()
        execution.cancel()
        ran = await execution.wait()
        late_s = time.perf_counter() - started
        assert (ran.status, ran.exit_code) == (ExecutionStatus.CANCELLED, None)
        await bench.quiet()
        if late_s <= LATE_S:
            break
    assert late_s <= LATE_S
    assert await bench.works(sandbox)


OUTLIVING = {
    "a child": "import os\nif os.fork() == 0:\n    import time; time.sleep(1000)\n",
    "a daemon": "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
    "        import signal, time\n        for s in signal.valid_signals() - {9, 19}:\n"
    "            signal.signal(s, signal.SIG_IGN)\n        time.sleep(1000)\n    os._exit(0)\nos.wait()\n",
    "a shell": "import subprocess; subprocess.Popen(['/bin/sh', '-c', 'sleep 1000 & sleep 1000'])",
    "a stopped one": "import os, signal\nif os.fork() == 0:\n    os.kill(os.getpid(), signal.SIGSTOP)\n",
    "a forker": "import os\nif os.fork() == 0:\n    for _ in range(20):\n        if os.fork() == 0: break\n"
    "    import time; time.sleep(1000)\n",
}


@pytest.mark.parametrize("name", OUTLIVING)
@pytest.mark.few_on_gvisor(name=["a daemon", "a forker"])
async def test_end_of_the_main_process_is_the_end(name: str, bench: Bench) -> None:
    """The answer waits for nobody who holds the pipes, and what was left running is dead when it comes."""
    sandbox = await bench.make()
    assert await bench.works(sandbox)
    ran = await bench.run(sandbox, ONLY_INSIDE + OUTLIVING[name] + "\nprint('done')\nimport os; os._exit(0)")
    assert (ran.status, ran.exit_code, ran.stdout) == (ExecutionStatus.COMPLETED, 0, b"done\n")
    assert await bench.nothing_runs(sandbox)
    assert ran.duration_s < 30
    assert await bench.works(sandbox)


async def test_late_end_is_no_end_of_the_next(bench: Bench) -> None:
    """A kill that crosses the end of its execution on the way does not hit the next one."""
    sandbox = await bench.make()
    for _round in range(8 if bench.on_gvisor else 30):
        execution = sandbox.execute(ExecutionRequest("pass", 60))
        await asyncio.sleep(0.0005)
        execution.cancel()
        ended = await execution.wait()
        assert ended.status in (ExecutionStatus.CANCELLED, ExecutionStatus.COMPLETED)
        assert await bench.works(sandbox)


async def test_deadline_beside_the_end(bench: Bench) -> None:
    """Whichever comes first decides, and the answer is whole in either case."""
    sandbox = await bench.make()
    # A start takes longer in gVisor.
    sleep_s, limit_s = (0.2, 0.22) if bench.on_gvisor else (0.02, 0.0215)
    for _round in range(3 if bench.on_gvisor else 10):
        ran = await bench.run(sandbox, f"import time; print('x', flush=True); time.sleep({sleep_s})", limit_s)
        assert ran.status in (ExecutionStatus.TIMED_OUT, ExecutionStatus.COMPLETED)
        assert (ran.exit_code is None) is (ran.status is ExecutionStatus.TIMED_OUT)
        # What has not begun in time, on a busy machine, has printed nothing, or no end of its line.
        assert ran.stdout == b"x\n" or (ran.stdout in (b"", b"x") and ran.status is ExecutionStatus.TIMED_OUT)
    assert await bench.works(sandbox)


LINGERING = """
import array, os, socket, struct
listening = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(listening.getsockname())
far = listening.accept()[0]
near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 10))
near.setblocking(False)
try:
    while True: near.send(b"x" * 65536)
except BlockingIOError:
    pass
channel = socket.socket(fileno=63)
for each in (near, far):
    try:
        channel.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [each.fileno()]))])
    except OSError:
        pass
os.write(1, b"sent")
os._exit(0)
"""


@pytest.mark.needs_root_namespaces
async def test_nobody_waits_for_sockets_that_are_sent_out(walled: Bench) -> None:
    """The last close of one that lingers takes as long as its maker wants; it must not be the gateway's."""
    sandbox = await walled.make()
    async with Lag.measured() as lag:
        ran = await walled.run(sandbox, LINGERING)
    assert (ran.status, ran.stdout, ran.stderr) == (ExecutionStatus.COMPLETED, b"sent", b"")
    assert lag.worst_s < 5
