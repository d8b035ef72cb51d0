"""The kernel's surface, by running into it: what is refused is refused to real processes in a real environment."""

import errno

import pytest

from tests.runtime.hosts import Bench
from tests.runtime.kernel import numbers

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.attack]

# Defines ``call``: the name of the error that a call of the kernel ends with, None when it succeeds.
CALL = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *longs)
    if result == 0 and number in FORKS: os._exit(0)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else None
"""


def _call() -> str:
    return CALL.replace("FORKS", str([numbers()["clone"]]))


ATTEMPTS = {
    "a user namespace": ("unshare", "0x10000000"),
    "a mount namespace": ("unshare", "0x20000"),
    "a clone in a user namespace": ("clone", "0x10000011, 0, 0, 0, 0"),
    "a clone in a network namespace": ("clone", "0x40000011, 0, 0, 0, 0"),
    "to join a namespace": ("setns", "os.open('/proc/self/ns/net', os.O_RDONLY), 0"),
    "a mount": ("mount", "b'none', b'/tmp', b'tmpfs', 0, 0"),
    "a mount of the new kind": ("fsopen", "b'tmpfs', 0"),
    "to unmount": ("umount2", "b'/proc', 2"),
    "another root": ("chroot", "b'/tmp'"),
    "to turn the root around": ("pivot_root", "b'/tmp', b'/tmp'"),
    "to be traced": ("ptrace", "0, 0, 0, 0"),
    "to read another's memory": ("process_vm_readv", "os.getpid(), 0, 0, 0, 0, 0"),
    "a program in the kernel": ("bpf", "0, 0, 0"),
    "a ring": ("io_uring_setup", "8, ctypes.create_string_buffer(256)"),
    "a keyring": ("keyctl", "0, -3, 1, 0, 0"),
    "a key": ("add_key", "b'user', b'x', b'y', 1, -3"),
    "a counter": ("perf_event_open", "ctypes.create_string_buffer(256), 0, -1, -1, 0"),
    "faults": ("userfaultfd", "1"),
    "a handle": ("open_by_handle_at", "-100, ctypes.create_string_buffer(64), 0"),
    "another personality": ("personality", "0x0040000"),
    "another kernel": ("kexec_load", "0, 0, 0, 0"),
    "a module": ("init_module", "0, 0, b''"),
    "swap": ("swapon", "b'/tmp/x', 0"),
    "to reboot": ("reboot", "0, 0, 0, 0"),
    "another name": ("sethostname", "b'x', 1"),
    "another time": ("clock_settime", "0, ctypes.create_string_buffer(16)"),
    "the log": ("syslog", "3, 0, 0"),
    "to watch files": ("inotify_init1", "0"),
    "a filter of its own": ("seccomp", "1, 0, 0"),
    "a real-time policy": ("sched_setscheduler", "0, 1, ctypes.create_string_buffer(b'\\1')"),
    "a device": ("mknodat", "-100, b'd', 0o20666, 0x101"),
    "a capability": ("prctl", "47, 2, 1, 0, 0"),
}


# There the kernel has nothing of most of them, and the same filter before it.
_IN_GVISOR = ("a user namespace", "to join a namespace", "a mount", "another root", "to be traced", "a device")


@pytest.mark.parametrize("name", ATTEMPTS)
@pytest.mark.few_on_gvisor(name=_IN_GVISOR)
async def test_attempt(name: str, walled: Bench) -> None:
    """Nobody inside gets what an attacker would ask for."""
    what, arguments = ATTEMPTS[name]
    code = _call() + f"answer = call({numbers()[what]}, {arguments})"
    assert await walled.ask(await walled.make(), code) == "EPERM"


async def test_sockets(walled: Bench) -> None:
    """Families and kinds of sockets that reach into the kernel, or past its routes, are refused."""
    odd = [
        (16, 3, 12),
        (17, 3, 768),
        (38, 5, 0),
        (40, 1, 0),
        (29, 3, 1),
        (31, 1, 3),
        (44, 3, 0),
        (30, 5, 0),
        (15, 3, 2),
        (2, 3, 1),
    ]
    code = (
        "import errno, socket\ndef make(*kind):\n    try: socket.socket(*kind)\n"
        f"    except OSError as e: return errno.errorcode[e.errno]\nanswer = [make(*kind) for kind in {odd!r}]"
    )
    assert set(await walled.ask(await walled.make(), code)) == {"EPERM"}


async def test_ordinary_programs_meet_no_wall(walled: Bench) -> None:
    """What libraries and shells usually call is there."""
    code = (
        "import asyncio, multiprocessing.shared_memory, os, select, signal, sqlite3, ssl, subprocess, tempfile\n"
        "m = multiprocessing.shared_memory.SharedMemory(create=True, size=9); m.close(); m.unlink()\n"
        "select.epoll().register(os.pipe()[0])\nos.memfd_create('x'); os.eventfd(0)\n"
        "signal.sigtimedwait([signal.SIGUSR1], 0)\nos.sched_setaffinity(0, os.sched_getaffinity(0)); os.nice(5)\n"
        "os.getrandom(8); os.sched_yield(); os.sync(); os.mkfifo('pipe')\n"
        "with tempfile.TemporaryDirectory() as d: os.link(tempfile.mkstemp(dir=d)[1], d + '/l'); os.statvfs(d)\n"
        "subprocess.run('ls -la / | sort | head -3; date; id; env', shell=True, check=True, capture_output=True)\n"
        "sqlite3.connect('x.db').execute('create table t (a)')\nssl.create_default_context()\nanswer = 1"
    )
    assert await walled.ask(await walled.make(), code) == 1


COMMANDS = (
    "ls -la /", "ls /proc/self/fd", "stat /etc/passwd", "find /etc -name passwd", "cp /etc/passwd p; mv p q; rm q",
    "mkdir -p a/b; touch a/b/c; cp -a a d; rm -r a d", "tar cf t.tar /etc/passwd; tar tf t.tar", "df .; du -s .",
    "head -c 9 /dev/zero | od -c", "sed s/root/x/ /etc/passwd | sort | uniq -c | wc -l", "date; id; env; uname -a",
    "test -x /bin/sh && ln -s /bin/sh s && readlink -f s", "grep -r root /etc/passwd; awk 1 /etc/passwd; chmod 700 .",
    "echo x > f; sync f; truncate -s 9 f; ls --time-style=full-iso -l f; sleep 0; timeout 5 true; kill -0 $$",
)  # fmt: skip


async def test_ordinary_commands(walled: Bench) -> None:
    """Each of them does what it does elsewhere, without a word."""
    code = (
        f"import subprocess\nanswer = {{}}\nfor line in {COMMANDS!r}:\n"
        "    ran = subprocess.run('set -e; ' + line, shell=True, capture_output=True, text=True)\n"
        "    if ran.returncode or ran.stderr.replace('tar: Removing leading `/\\' from member names\\n', ''):\n"
        "        answer[line] = [ran.returncode, ran.stderr]"
    )
    found = await walled.ask(await walled.make(), code)
    if walled.on_gvisor:
        # An old one refuses a flag with which these two look at a file.
        words = {line: set(line.replace(";", " ").split()) for line in found}
        found = {line: said for line, said in found.items() if not words[line] & {"ls", "stat"}}
    assert found == {}


async def test_handles_of_processes(walled: Bench) -> None:
    """They are to be had where the kernel has them, which an old gVisor's has not."""
    code = "import os\ntry: answer = os.pidfd_open(os.getpid()) > 0\nexcept OSError as e: answer = e.errno"
    assert await walled.ask(await walled.make(), code) in ([True, errno.ENOSYS] if walled.on_gvisor else [True])


async def test_library_imports(walled: Bench) -> None:
    """The modules of the standard library are there inside."""
    missing = "import importlib, sys, warnings\nwarnings.simplefilter('ignore')\nanswer = []\n" + (
        "for name in sorted(sys.stdlib_module_names - {'antigravity', 'this', 'idlelib', 'turtledemo', 'nt'}):\n"
        "    try: name.startswith('_') or importlib.import_module(name)\n    except ModuleNotFoundError: pass\n"
        "    except Exception as e: answer.append(repr(e))"
    )
    assert await walled.ask(await walled.make(), missing) == []
