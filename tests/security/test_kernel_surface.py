"""Every system call by its number, the foreign ways to make one, and what arguments must not bring."""

import platform
import signal

import pytest

from sandgate.sandbox.seccomp import build_filter
from tests.runtime.kernel import numbers
from tests.security.siege import Siege
from tests.security.surface import BY_ARGUMENTS, read_snapshot, surface

pytestmark = pytest.mark.needs_root_namespaces

on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers and machine code of x86_64")


def test_snapshot() -> None:
    """The surface is the one that was agreed on; a call that this libseccomp does not know is refused."""
    expected = {name: word for name, (_number, word) in read_snapshot().items()}
    found = surface(build_filter())
    known = set(expected) & set(found)
    assert len(known) > 250
    assert {name: found[name] for name in known if found[name] != expected[name]} == {}
    # A kernel's newer calls are not let through before somebody has looked at them.
    assert {name: found[name] for name in set(found) - known if found[name] != "EPERM"} == {}


# uretprobe and uprobe, which newer kernels keep from every filter; called from anywhere but a probe they are SIGILL.
PROBES = (335, 336)


@on_x86
async def test_every_number(siege: Siege) -> None:
    """Whatever is not on the list is refused to a real process, by number, unassigned ones among them."""
    rows = dict(read_snapshot().values())
    asked = [
        number
        for number in range(640)
        if number not in PROBES and rows.get(number, "EPERM") not in ("allowed", "ignored", BY_ARGUMENTS)
    ]
    assert len(asked) > 300
    found = await siege.ask(f"answer = {{n: call(n, *[-1] * 6) for n in {asked!r}}}")
    assert {int(number): error for number, error in found.items()} == {
        number: rows.get(number, "EPERM") for number in asked
    }


# By 32-bit numbers: exit, fork, write, open, execve, mount, ptrace, socketcall, clone, mmap2, keyctl, bpf and clone3.
FOREIGN = """
import ctypes, mmap
def end_of(code):
    pid = os.fork()
    if pid == 0:
        m = mmap.mmap(-1, 4096, prot=7)
        m.write(code)
        ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()
        os._exit(77)
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
def int_80(n): return b'\\xb8' + struct.pack('<I', n) + b'\\xcd\\x80\\xc3'
def x32(n): return b'\\xb8' + struct.pack('<I', n | 0x40000000) + b'\\x0f\\x05\\xc3'
answer = [[end_of(int_80(n)) for n in (1, 2, 4, 5, 11, 16, 20, 21, 26, 54, 102, 120, 192, 288, 357, 435)],
  [end_of(x32(n)) for n in (0, 1, 16, 39, 54, 56, 59, 60, 101, 165, 250, 321, 512, 520, 521, 545)]]
"""


@on_x86
@pytest.mark.not_on_gvisor("however a call is made there, it is the one of 64 bits, and judged as that")
async def test_foreign_abi(siege: Siege) -> None:
    """Calls by the numbers of 32 bits and of x32 kill whoever makes them, those answered by argument among them."""
    for ends in await siege.ask(FOREIGN):
        # A kernel that has no such calls at all answers with another signal.
        assert set(ends) <= {-signal.SIGSYS, -signal.SIGSEGV}


async def test_families_and_protocols(siege: Siege) -> None:
    """No module of the kernel is asked for by a socket, or a pair of them, of whatever family or protocol."""
    code = (
        "def make(how, *kind):\n    try: how(*kind)\n    except OSError as e: return errno.errorcode[e.errno]\n"
        "answer = [sorted({str(make(socket.socketpair, f, t, 0)) for f in range(2, 47) for t in (1, 2, 3, 5)}),\n"
        "  [[f, t, p] for f in (2, 10) for t in (1, 2, 5) for p in range(300)"
        " if make(socket.socket, f, t, p) is None],\n"
        "  sorted({str(make(socket.socket, f, 1, 0)) for f in range(3, 47) if f not in (10, 16)})]"
    )
    pairs, sockets, families = await siege.ask(code)
    assert pairs == families == ["EPERM"]
    assert sockets == [[f, t, p] for f in (2, 10) for t, own in ((1, 6), (2, 17)) for p in (0, own)]


async def test_huge_pages(siege: Siege) -> None:
    """Pages that the host has set aside, which no control group counts, are refused by every way to them."""
    n = numbers()
    code = (
        f"answer = [call({n['mmap']}, 0, 1 << 21, 3, 0x40022, -1, 0), call({n['mmap']}, 0, 1 << 21, 3, "
        f"0x40022 | 21 << 26, -1, 0), call({n['memfd_create']}, b'x', 4), call({n['shmget']}, 0, 1 << 21, 0o5600)]"
    )
    assert await siege.ask(code) == ["ENOMEM", "ENOMEM", "EINVAL", "EPERM"]


async def test_no_core_dump(siege: Siege) -> None:
    """The limit at which the kernel does not even ask the host's handler of core dumps cannot be changed."""
    n = numbers()
    code = (
        "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        f"zero = struct.pack('QQ', 0, 0)\nold = ctypes.create_string_buffer(16)\n"
        f"answer = [call({n['setrlimit']}, 4, zero), call({n['prlimit64']}, 0, 4, zero, old),\n"
        f"  call({n['setrlimit']}, 4 | 1 << 32, zero), call({n['prlimit64']}, 0, 4 | 1 << 32, zero, 0),\n"
        "  resource.getrlimit(resource.RLIMIT_CORE)]\nos.system('kill -SEGV $$')"
    )
    assert await siege.ask(code) == [None, None, None, None, [1, 1]]
    crashed = await siege.run("os.kill(os.getpid(), signal.SIGSEGV)")
    assert crashed.exit_code == 128 + signal.SIGSEGV


async def test_programs_for_the_kernel(siege: Siege) -> None:
    """No filter is put on a socket, no protocol above TCP, no driver on a terminal."""
    code = (
        "program = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 1))\n"
        "filter = struct.pack('HxxxxxxP', 1, ctypes.addressof(program))\ns = socket.socket()\n"
        "answer = [fails(s.setsockopt, 1, o, v) for o, v in ((26, filter), (51, filter), (50, 1), (52, 1))]\n"
        "answer += [fails(s.setsockopt, 6, 31, b'tls')]\nimport fcntl\nleader, follower = os.openpty()\n"
        "answer += [fails(fcntl.ioctl, follower, 0x5423, struct.pack('i', n)) for n in (0, 2, 13, 21, 27)]\n"
    )
    assert await siege.ask(code) == [*["EPERM"] * 4, "ENOENT", *["EPERM"] * 5]


async def test_the_hosts_disks_are_left_alone(siege: Siege) -> None:
    """Nobody inside makes the host write out its disks, or read again what every environment is shown."""
    n = numbers()
    code = (
        f"fd = os.open(os.path.realpath(sys.executable), os.O_RDONLY)\nsize = os.fstat(fd).st_size\n"
        f"took = []\nfor _ in range(200):\n    started = time.monotonic()\n    call({n['sync']})\n"
        "    took.append(time.monotonic() - started)\n"
        "os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)\n"
        f"answer = [call({n['sync']}), call({n['fadvise64']}, fd, 0, 0, 4 | 1 << 32), sum(sorted(took)[:100])]"
    )
    synced, dropped, took_s = await siege.ask(code)
    assert (synced, dropped) == (None, None)
    # Of the quicker half: whoever else has the processor meanwhile is no disk.
    assert took_s < 2.5


READ = """
def read(path):
    try:
        with open(path, 'rb') as file: return file.read(4096).decode('latin-1')
    except OSError as error: return errno.errorcode[error.errno]
"""


async def test_what_the_host_was_started_with(siege: Siege) -> None:
    """The host's boot line, its log and the addresses of its kernel are nobody's business."""
    found = await siege.ask(
        READ + "answer = [read('/proc/' + n) for n in ('cmdline', 'kallsyms', 'kmsg', 'bootconfig')]\n"
        "answer.append(os.listdir('/proc/pressure') if os.path.exists('/proc/pressure') else [])"
    )
    # gVisor's kernel has a line of its own.
    of_gvisor = {text for text in found[:1] if siege.bench.on_gvisor and "gvisor" in text}
    assert set(found[:4]) <= {"", "ENOENT", "EACCES", "EPERM", *of_gvisor}
    assert found[4] == []


async def test_nothing_below_proc_and_sys_can_be_written(siege: Siege) -> None:
    """Of the files below ``/proc`` only those of the process itself open for writing, and there is no ``/sys``."""
    code = (
        "own, opened = f'/proc/{os.getpid()}', []\nfor root, folders, files in os.walk('/proc'):\n"
        "    folders[:] = [f for f in folders if f not in ('task', 'root', 'cwd', 'map_files', 'fd')]\n"
        "    for path in (root + '/' + name for name in files):\n"
        "        if os.path.islink(path) or path.startswith(own + '/'): continue\n"
        "        try: fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)\n        except OSError: continue\n"
        "        if os.fstat(fd).st_rdev != os.stat('/dev/null').st_rdev: opened.append(path)\n        os.close(fd)\n"
        "answer = [opened, os.path.exists('/sys'), fails(os.open, '/proc/sys/kernel/core_pattern', os.O_WRONLY),\n"
        "  fails(os.open, '/proc/sysrq-trigger', os.O_WRONLY)]"
    )
    opened, has_sys, core_pattern, sysrq = await siege.ask(code)
    assert opened == []
    assert has_sys is False
    assert {core_pattern, sysrq} <= {"EROFS", "EACCES", "EPERM", "ENOENT", None}
    assert core_pattern in ("EROFS", "EACCES", "EPERM", *(["ENOENT"] if siege.bench.on_gvisor else []))
