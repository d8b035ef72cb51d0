"""What two environments might share after all: locks, queues, names, counts of one user, and the pages of files."""

import pytest

from sandgate.core.execution import ExecutionRequest
from sandgate.core.states import ExecutionStatus
from tests.security.siege import TOOLS, Siege

pytestmark = pytest.mark.needs_root_namespaces

SHARED = ["/usr/bin/env", "/etc/passwd", "/usr", "/etc"]

# Takes as much as it gets of something that the kernel counts for a user, says so, and keeps it.
HOGS = {
    "locks": (
        "import fcntl\nkept = [os.open(p, os.O_RDONLY) for p in SHARED]\n"
        "for fd in kept:\n    fails(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    fails(fcntl.fcntl, fd, 1024, fcntl.F_RDLCK)\n    fails(fcntl.fcntl, fd, 1026, 0x3F)"
    ),
    "pages of pipes": (
        "import fcntl\nkept = []\nfor _ in range(400):\n    kept.append(os.pipe())\n"
        "    fails(fcntl.fcntl, kept[-1][1], 1031, 1 << 20)"
    ),
    "signals that wait": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [40])\nn = 0\n"
        "while n < 200_000 and libc.sigqueue(os.getpid(), 40, None) == 0: n += 1"
    ),
    "bytes of queues": (
        "class A(ctypes.Structure): _fields_ = [('f', ctypes.c_long), ('n', ctypes.c_long), ('s', ctypes.c_long), "
        "('r', ctypes.c_long * 5)]\nkept = [libc.mq_open(b'/q%d' % n, 0o102, 0o600, ctypes.byref(A(0, 10, 8192))) "
        "for n in range(200)]"
    ),
    "locked memory": "import mmap\nkept = mmap.mmap(-1, 1 << 16)\nlibc.mlockall(3)",
    "watches": (
        "import select\nkept = [select.epoll() for _ in range(400)]\npipes = [os.pipe()[0] for _ in range(200)]\n"
        "for e in kept:\n    for p in pipes: e.register(p)"
    ),
    "terminals": "kept = []\ntry:\n    while True: kept.append(os.openpty())\nexcept OSError: os.close(kept[-1][0])",
    "semaphores": "kept = [libc.semget(0, 1000, 0o1600) for _ in range(1000)]",
    "segments": "kept = [libc.shmget(0, 4096, 0o1600) for _ in range(4000)]",
    "names": (
        "kept = [socket.socket(socket.AF_UNIX) for _ in range(300)]\n"
        "for n, s in enumerate(kept): s.bind(f'\\0name-{n}'); s.listen()"
    ),
    "ports": (
        "kept = []\ntry:\n    for port in range(1024, 2000):\n        kept.append(socket.socket())\n"
        "        kept[-1].bind(('127.0.0.1', port))\n        kept[-1].listen()\nexcept OSError: pass"
    ),
    # Each holds itself, so that only the kernel's search for such circles, which is one for the machine, lets go of it.
    "descriptors under way": (
        "ends = []\ntry:\n    while True:\n        a, b = socket.socketpair()\n"
        "        socket.send_fds(a, [b'x'], [a.fileno(), b.fileno()])\n        a.close(), b.close()\n"
        "except OSError as e: assert e.errno in (errno.ETOOMANYREFS, errno.EMFILE, errno.ENOMEM), e"
    ),
    "flags of what is shared": (
        "import fcntl\nfor fd in (0, 1, 2, 63):\n    fails(fcntl.fcntl, fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)"
    ),
}

# What a neighbour does meanwhile: the same things, with none of them lacking.
ORDINARY = """
import fcntl, select, mmap
answer = {}
for path in SHARED:
    fd = os.open(path, os.O_RDONLY)
    answer['lock ' + path] = fails(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
r, w = os.pipe()
answer['pipe'] = fcntl.fcntl(w, 1031, 1 << 20) >= 1 << 20
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
answer['signal'] = libc.sigqueue(os.getpid(), 40, None) == 0
fd = libc.mq_open(b'/q0', 0o302, 0o600, None)
answer['queue'] = fd >= 0
libc.mq_unlink(b'/q0')
m = ctypes.create_string_buffer(4096)
answer['lock of memory'] = libc.mlock(m, 4096) == 0
e = select.epoll()
answer['watch'] = fails(e.register, r)
answer['terminal'] = fails(os.openpty)
answer['semaphore'] = libc.semget(0, 10, 0o1600) >= 0
segment = libc.shmget(7, 4096, 0o3600)
answer['segment'] = segment >= 0
libc.shmctl(segment, 0, None)
s = socket.socket(socket.AF_UNIX)
answer['name'] = fails(s.bind, '\\0name-0')
t = socket.socket()
left, right = socket.socketpair()
answer['under way'] = fails(socket.send_fds, left, [b'x'], [r]) or len(socket.recv_fds(right, 1, 1)[1]) == 1
answer['port'] = fails(t.bind, ('127.0.0.1', 1024))
answer['blocks'] = os.get_blocking(0) and os.get_blocking(1) and os.get_blocking(63)
"""


@pytest.mark.parametrize("name", HOGS)
# Each has a kernel of its own, and little to share.
@pytest.mark.few_on_gvisor(name=["locks", "ports", "flags of what is shared"])
async def test_what_one_takes_another_does_not_lack(name: str, siege: Siege) -> None:
    """Whatever an environment uses up, its neighbour has all of its own."""
    shared = f"SHARED = {SHARED!r}\n"
    hog = siege.attacker.execute(
        ExecutionRequest(TOOLS + shared + HOGS[name] + "\nopen('on', 'w').close()\ntime.sleep(60)", 60)
    )
    wait = "import os, time\nwhile not os.path.exists('on'): time.sleep(0.002)"
    await siege.bench.run(siege.attacker, wait)
    found = await siege.bench.ask(siege.neighbour, TOOLS + shared + ORDINARY)
    if siege.bench.on_gvisor:
        # An old one keeps the name of a queue that was removed, which an earlier test may have done here.
        del found["queue"]
    assert {what: had for what, had in found.items() if had not in (None, True)} == {}
    hog.cancel()
    # In gVisor nothing but the hog's own memory and time bounds what is under way.
    own = [ExecutionStatus.OUT_OF_MEMORY, ExecutionStatus.TIMED_OUT] if siege.bench.on_gvisor else []
    assert (await hog.wait()).status in (ExecutionStatus.CANCELLED, *own)


async def test_files_in_memory_that_are_handed_out(siege: Siege) -> None:
    """What an execution gives the gateway to close costs the gateway nothing."""
    code = (
        "m = os.memfd_create('x')\nfor _ in range(200): os.write(m, bytes(1 << 20))\ns = socket.socket(fileno=63)\n"
        "answer = fails(socket.send_fds, s, [b'x'], [m])\nos.close(m)"
    )
    assert await siege.ask(code) in ("EPERM", None, *(["EINVAL"] if siege.bench.on_gvisor else []))


async def test_two_of_one_name(siege: Siege) -> None:
    """A queue, a segment and an abstract name that one has made are not there for the other."""
    make = (
        "fd = libc.mq_open(b'/mine', 0o102, 0o600, None)\nlibc.shmget(77, 4096, 0o1600)\nlibc.msgget(78, 0o1600)\n"
        "libc.semget(79, 1, 0o1600)\nopen('/dev/shm/mine', 'w').close()\nanswer = fd >= 0"
    )
    assert await siege.ask(make) is True
    look = (
        "answer = [libc.mq_open(b'/mine', 0, 0, None), libc.shmget(77, 4096, 0), libc.msgget(78, 0), "
        "libc.semget(79, 1, 0), os.path.exists('/dev/shm/mine')]"
    )
    assert await siege.bench.ask(siege.neighbour, TOOLS + look) == [-1, -1, -1, -1, False]
