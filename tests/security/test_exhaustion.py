"""Memory of every kind that the kernel keeps for a process, and how much of it one environment gets."""

from pathlib import Path

import pytest

from sandgate.core.execution import ExecutionRequest
from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.pools_probe import FILE_BYTES
from tests.runtime.hosts import Bench
from tests.security.siege import TOOLS, Siege

pytestmark = pytest.mark.needs_root_namespaces

SMALL = Limits(memory_bytes=64 * MIB, disk_bytes=32 * MIB, inodes=2000, processes=32)
_PAGE = 4096

# Fills connections of its own loopback in both directions, says so, and keeps them for a moment.
SOCKETS = """
server = socket.create_server(('127.0.0.1', 0), backlog=500)
kept = []
def fill(end):
    for option in (7, 8): end.setsockopt(1, option, 8 << 20)
    end.setblocking(False)
    try:
        while True: end.send(b'x' * (1 << 20))
    except BlockingIOError: pass
try:
    for _ in range(150):
        kept.append(socket.create_connection(server.getsockname()))
        kept.append(server.accept()[0])
        for end in kept[-2:]: fill(end)
except OSError: pass
print('full', flush=True)
time.sleep(0.5)
"""


def _ip_memory() -> int:
    """What all sockets of IP on this machine hold. Source: proc(5), sockstat, in pages."""
    words = Path("/proc/net/sockstat").read_text().split()
    return sum(int(words[place + 1]) for place, word in enumerate(words) if word == "mem") * _PAGE


@pytest.mark.not_on_gvisor("its connections are in gVisor's kernel")
async def test_memory_of_sockets(siege: Siege) -> None:
    """What waits in sockets of IP is bounded, because the whole machine, and the gateway, has one purse of it."""
    # Connections of other tests on this machine are among it: the least of some times.
    allowed, seen = SMALL.memory_bytes + SMALL.disk_bytes + 64 * MIB, list[int]()
    while not seen or (min(seen) > allowed and len(seen) < 3):
        seen.append(await _most_ip_memory(siege))
    assert min(seen) <= allowed, seen


async def _most_ip_memory(siege: Siege) -> int:
    """By how much it was more while a sandbox filled sockets."""
    sandbox = await siege.bench.make(limits=SMALL)
    before, most = _ip_memory(), 0
    filling = sandbox.execute(ExecutionRequest(TOOLS + SOCKETS, 60.0))
    waiting = True
    while waiting:
        assert await siege.bench.works(siege.neighbour)
        most = max(most, _ip_memory() - before)
        waiting = not getattr(filling, "ended", True)
    ran = await filling.wait()
    assert ran.status in (ExecutionStatus.COMPLETED, ExecutionStatus.OUT_OF_MEMORY), ran
    return most


# Each takes memory in a way of its own, as much as it gets, and does not give it back before its end.
KEEPERS = {
    "pipes": (
        "import fcntl\nkept = []\ntry:\n    while True:\n        kept.append(os.pipe())\n"
        "        try: fcntl.fcntl(kept[-1][1], 1031, 1 << 20)\n        except OSError: pass\n"
        "        os.set_blocking(kept[-1][1], False)\n        try:\n"
        "            while True: os.write(kept[-1][1], b'x' * 65536)\n        except BlockingIOError: pass\n"
        "except OSError as e: print(errno.errorcode[e.errno])"
    ),
    "messages": (
        "queues = 0\ntry:\n    while True:\n        queue = libc.msgget(0, 0o1600)\n"
        "        if queue < 0: break\n        queues += 1\n"
        "        while libc.msgsnd(queue, struct.pack('q', 1) + b'x' * 8000, 8000, 0o4000) == 0: pass\n"
        "except OSError: pass\nprint(queues > 10)"
    ),
    "POSIX queues": (
        "made = 0\nwhile made < 5000:\n    fd = libc.mq_open(b'/q%d' % made, 0o102, 0o600, None)\n"
        "    if fd < 0: break\n    made += 1\n    os.close(fd)\nprint(0 < made < 5000)"
    ),
    "timers": (
        "made = 0\ntimer = ctypes.c_void_p()\nwhile made < 300_000 and libc.timer_create(1, None, "
        "ctypes.byref(timer)) == 0: made += 1\nprint(made > 0)"
    ),
    "signals": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [40])\nsent = 0\n"
        "while sent < 300_000 and libc.sigqueue(os.getpid(), 40, None) == 0: sent += 1\nprint(sent > 0)"
    ),
    "mappings": (
        "import mmap\nkept = []\ntry:\n    while len(kept) < 200_000:\n"
        "        kept.append(mmap.mmap(-1, 4096, prot=1 + len(kept) % 2 * 2))\n"
        "except OSError as e: print(errno.errorcode[e.errno])"
    ),
    "page tables": (
        "import mmap\nlibc.mmap.restype = ctypes.c_void_p\nlibc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, "
        "*[ctypes.c_int] * 3, ctypes.c_long]\nbase = libc.mmap(None, 1 << 40, 1, 0x4022, -1, 0)\n"
        "if base + 1:\n    for step in range(1 << 19): ctypes.c_char.from_address(base + (step << 21)).value"
    ),
    "names that are not there": (
        "for n in range(30_000):\n    try: os.stat(f'/usr/{n}-' + 'x' * 200)\n    except OSError: pass\nprint(True)"
    ),
    "epoll": (
        "kept = [os.eventfd(0)]\ntry:\n    while True:\n        import select\n"
        "        kept.append(select.epoll())\n        kept[-1].register(kept[0])\n"
        "except OSError as e: print(errno.errorcode[e.errno])"
    ),
}


@pytest.mark.parametrize("name", KEEPERS)
@pytest.mark.few_on_gvisor(name=["pipes", "epoll"])
async def test_memory_of_the_kernel(name: str, siege: Siege) -> None:
    """It is the environment's own: it comes to an end with an error or with the execution, and the next one works."""
    siege.attacker = await siege.bench.make(limits=SMALL)
    ran = await siege.run(KEEPERS[name], 4.0)
    assert ran.status in (
        ExecutionStatus.COMPLETED,
        ExecutionStatus.OUT_OF_MEMORY,
        ExecutionStatus.TIMED_OUT,
    ), ran
    # What gVisor's kernel has used comes back a moment after the end, and may be the next one's end.
    rounds = 3 if siege.bench.on_gvisor else 1
    again = [await siege.bench.works(siege.attacker) for _round in range(rounds)]
    assert again[-1] or name == "messages"
    group = _group_of(siege.bench)
    # Of gVisor's kernel, and up to where the host's would kill it.
    beyond = 320 * MIB if siege.bench.on_gvisor else 0
    assert group is None or group <= SMALL.memory_bytes + SMALL.disk_bytes + beyond


# Descriptors are bounded for each process, what only a mapping keeps open is by number of mappings, which is far more.
MAPPED = """
import mmap
kept, opened = [], 0
try:
    while opened < 60_000:
        file = os.open('/etc/passwd', os.O_RDONLY)
        kept.append(libc.mmap(None, 4096, 1, 1, file, 0))
        os.close(file)
        opened += 1
except OSError: pass
with open('counting', 'w') as file: file.write(str(opened))
os.rename('counting', 'opened')
time.sleep(60)
"""


@pytest.mark.not_on_gvisor("its open files are in gVisor's kernel")
async def test_open_files_are_memory_of_who_opens_them(siege: Siege) -> None:
    """So that memory bounds them, where the machine has more of them than memory for them; see ``pools_probe``."""
    sandbox = await siege.bench.make()
    before = (await sandbox.usage()).memory_bytes
    ran = sandbox.execute(ExecutionRequest(TOOLS + MAPPED, 60.0))
    wait = "import os, time\nwhile not os.path.exists('opened'): time.sleep(0.01)\nanswer = int(open('opened').read())"
    opened = await siege.bench.ask(sandbox, wait)
    used = (await sandbox.usage()).memory_bytes
    ran.cancel()
    assert (await ran.wait()).status is ExecutionStatus.CANCELLED
    assert opened == 60_000
    assert (used or 0) - (before or 0) >= FILE_BYTES * opened


def _group_of(bench: Bench) -> int | None:
    """The most memory that the newest environment has ever held, where version 1 says so."""
    folders = [Path("/sys/fs/cgroup/memory") / path.parent.name / path.name for path in bench.host.groups()]
    peaks = [folder / "memory.max_usage_in_bytes" for folder in folders]
    newest = max((peak for peak in peaks if peak.exists()), key=lambda peak: int(peak.parent.name[1:]), default=None)
    return None if newest is None else int(newest.read_text())
