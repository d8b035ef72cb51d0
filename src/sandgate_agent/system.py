"""System calls that the oldest supported Python has no function for.

Constants are the kernel's (Source: include/uapi/linux/sched.h, mount.h, prctl.h, capability.h, seccomp.h).
"""

import _signal
import _thread
import ctypes
import os
import struct
from functools import partial
from typing import Callable, Iterable, List, NamedTuple, Optional, Tuple

from sandgate_agent import calls
from sandgate_agent.calls import Call

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PIDFD = 0x00001000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SHARED = 0x100000
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

CAP_DAC_READ_SEARCH = 2
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION_3 = 0x20080522


Usage = Tuple[int, int, int, int, int]


class _Numbers(NamedTuple):
    clone: int
    pivot_root: int
    capset: int


_NUMBERS = {
    "x86_64": _Numbers(clone=56, pivot_root=155, capset=126),
    "aarch64": _Numbers(clone=220, pivot_root=41, capset=91),
}
_MACHINE = os.uname().machine


def _numbers() -> _Numbers:
    if _MACHINE not in _NUMBERS:
        raise OSError("sandgate knows no system call numbers for this processor: " + _MACHINE)
    return _NUMBERS[_MACHINE]


def _make(call: Call) -> int:
    """Make one call and answer its result. Raises ``OSError`` that names it."""
    result = call()
    if result < 0:
        raise calls.failure(call)
    return result


def clone(flags: int) -> int:
    """Fork with namespaces: 0 in the new process, its id in the caller's process namespace otherwise.

    Runs no fork handlers; a role that goes on to run code of others forks again with ``os.fork``.
    """
    return _make(calls.prepare("syscall", _numbers().clone, flags | _signal.SIGCHLD, None, None, None, None))


# Where libc keeps a thread's number inside its descriptor; checked against the true number before it is used.
# Source: struct pthread in glibc's nptl/descr.h and in musl's src/internal/pthread_impl.h.
_TID_OFFSETS = {"x86_64": 720, "aarch64": 208}
_TID_OFFSETS_OF_MUSL = {"x86_64": 48, "aarch64": 32}
# Source: include/uapi/linux/wait.h
_WALL = 0x40000000
_CLONE_CHILD_SETTID = 0x01000000
_CLONE_CHILD_CLEARTID = 0x00200000


def find_thread_number() -> int:
    """The address of the number that libc remembers of this thread; 0 when it is not where it is expected."""
    library = ctypes.PyDLL(None)
    # Source: gnu_get_libc_version(3), which no other libc has.
    offsets = _TID_OFFSETS if hasattr(library, "gnu_get_libc_version") else _TID_OFFSETS_OF_MUSL
    offset = offsets.get(_MACHINE)
    library.pthread_self.restype = ctypes.c_ulong
    if offset is None:
        return 0
    address = int(library.pthread_self()) + offset
    return address if ctypes.c_int.from_address(address).value == _thread.get_native_id() else 0


def prepare_light_fork(thread_number: int) -> Call:
    """A fork without fork handlers, for a process of one thread that holds no locks.

    The handlers of the interpreter and its library reset what only other threads could have left behind, and touch
    hundreds of kilobytes for it, all of which would be copied. ``thread_number`` is of :func:`find_thread_number`:
    libc must know the new number to send signals to this thread.
    """
    flags = _signal.SIGCHLD
    if thread_number:
        flags |= _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
    address = ctypes.c_void_p(thread_number)
    # The last two arguments change places between processors, and the other one is not used without its flag.
    return calls.prepare("syscall", _numbers().clone, flags, None, None, address, address)


def prepare_clone_with_pidfd(flags: int) -> "Tuple[Call, ctypes.c_int]":
    """A clone, and the place where its caller finds a descriptor of the new process afterwards."""
    pidfd = ctypes.c_int(-1)
    wanted = flags | CLONE_PIDFD | _signal.SIGCHLD
    return calls.prepare("syscall", _numbers().clone, wanted, None, ctypes.byref(pidfd), None, None), pidfd


def unshare(flags: int) -> None:
    """Leave the namespaces named by ``flags`` for new ones."""
    _make(calls.prepare("unshare", flags))


def prepare_mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> Call:
    """A file system to be attached."""
    data = options.encode() if options else None
    return calls.prepare("mount", source.encode(), target.encode(), kind.encode(), flags, data)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Attach a file system."""
    _make(prepare_mount(source, target, kind, flags, options))


def enter_namespace(descriptor: int) -> None:
    """Join a namespace; which kind is known by its descriptor."""
    _make(calls.prepare("setns", descriptor, 0))


def prepare_pivot_root(folder: str) -> List[Call]:
    """Make a folder the root and drop the old one.

    Source: pivot_root(2), "pivot_root(".", ".")": the old root ends up stacked on the new one and is detached.
    """
    return [
        calls.prepare("chdir", folder.encode()),
        calls.prepare("syscall", _numbers().pivot_root, b".", b"."),
        calls.prepare("umount2", b".", MNT_DETACH),
        calls.prepare("chdir", b"/"),
    ]


def prepare_prctl(option: int, argument: int = 0) -> Call:
    """prctl with one number."""
    return calls.prepare("prctl", option, argument, None, None, None)


def prctl(option: int, argument: int = 0) -> None:
    """prctl with one number, at once."""
    _make(prepare_prctl(option, argument))


def prepare_process_name(name: str) -> Call:
    """The name that ``ps`` shows, 15 bytes at most."""
    return calls.prepare("prctl", PR_SET_NAME, name.encode()[:15], None, None, None)


def set_process_name(name: str) -> None:
    """The name that ``ps`` shows, 15 bytes at most, at once."""
    prepare_process_name(name)()


def prepare_identity(user: int) -> List[Call]:
    """Become a user and its group, and a member of no other."""
    return [
        calls.prepare("setgroups", 0, None),
        calls.prepare("setresgid", user, user, user),
        calls.prepare("setresuid", user, user, user),
    ]


def prepare_bounding_set_drop() -> List[Call]:
    """From then on no program that is started can gain a capability."""
    known = calls.prepare
    there = [
        number
        for number in range(_LAST_CAPABILITY + 1)
        if known("prctl", PR_CAPBSET_READ, number, None, None, None)() >= 0
    ]
    return [prepare_prctl(PR_CAPBSET_DROP, number) for number in there]


def prepare_capabilities(kept: Iterable[int]) -> Call:
    """Drop every capability of the process but ``kept``."""
    low, high = 0, 0
    for capability in kept:
        if capability < 32:
            low |= 1 << capability
        else:
            high |= 1 << (capability - 32)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    data = struct.pack("IIIIII", low, low, 0, high, high, 0)
    return calls.prepare("syscall", _numbers().capset, header, data)


def prepare_limit(resource: int, value: int) -> Call:
    """A limit of the process, soft and hard."""
    return calls.prepare("setrlimit", resource, struct.pack("QQ", value, value))


def prepare_unblock(*signals: int) -> Call:
    """Let signals through again that were blocked."""
    return calls.prepare("pthread_sigmask", _signal.SIG_UNBLOCK, _mask(*signals), None)


def _mask(*signals: int) -> bytes:
    return struct.pack("Q", sum(1 << (number - 1) for number in signals)).ljust(128, b"\0")


class Filter:
    """A system call filter, made once so that installing it is one call."""

    def __init__(self, program: bytes) -> None:
        """Take instructions as the kernel's ``struct sock_filter``, 8 bytes each."""
        if not program or len(program) % 8:
            raise ValueError("a filter is a positive number of 8-byte instructions, not {} bytes".format(len(program)))
        self._instructions = ctypes.create_string_buffer(program, len(program))
        self._program = ctypes.create_string_buffer(
            struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(self._instructions))
        )
        # Confines the process and all its descendants; needs no_new_privs or CAP_SYS_ADMIN.
        self.install = calls.prepare("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, self._program, None, None)


def open_child_signals() -> int:
    """A descriptor that can be read when a child of this process has changed, or at SIGTERM; blocks both."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGCHLD, _signal.SIGTERM))
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    return _make(calls.prepare("signalfd", -1, _mask(_signal.SIGCHLD, _signal.SIGTERM), flags))


FOUND_FIRST, FOUND_SECOND = 3, 7


class Poll:
    """Waits until one of two descriptors can be read: ``wait(limit_ms)``, -1 for no limit. Source: poll(2).

    Then ``found`` is not 0 at ``FOUND_FIRST`` or ``FOUND_SECOND``. An end of file is something to be read.
    """

    def __init__(self, first: int, second: int) -> None:
        item = struct.Struct("@ihh")
        self.found = (ctypes.c_short * 8).from_buffer_copy(item.pack(first, 1, 0) + item.pack(second, 1, 0))
        self.wait: Callable[[int], int] = calls.prepare("poll", self.found, 2)  # type: ignore[assignment]


def prepare_drain(signals: int) -> Call:
    """Read what :func:`open_child_signals` has to say; what does not fit is said again by the next look."""
    return calls.prepare("read", signals, ctypes.create_string_buffer(1024), 1024)


class Burial:
    """Buries children, and adds up what they used.

    ``os.wait4`` imports a module for its answer. Source: struct rusage in getrusage(2), for 64 bits.
    """

    def __init__(self) -> None:
        status, usage = ctypes.create_string_buffer(4), ctypes.create_string_buffer(144)
        # Each answers the number of a child; 0 when none has ended yet, less when there is none.
        self.bury_ended = calls.prepare("wait4", -1, status, os.WNOHANG, usage)
        self.bury_next = calls.prepare("wait4", -1, status, 0, usage)
        # The same as the first, also of children that tell nobody of their end: less than 0 says that there is no
        # child at all.
        self.bury_any = calls.prepare("wait4", -1, status, os.WNOHANG | _WALL, usage)
        # Of the child buried last: the wait status; seconds and microseconds of CPU in user and system mode, and the
        # most memory that it held in KiB.
        self.status: Callable[[], Tuple[int]] = partial(struct.Struct("@i").unpack_from, status)
        self.usage: Callable[[], Usage] = partial(struct.Struct("@5q").unpack_from, usage)
        self._buffers = status, usage
        # What processes used that ended before the child that had started them, or had started who did.
        self.orphans: Optional[Usage] = None

    def add(self, used: Usage) -> Usage:
        """What others used, and the child buried last."""
        own = self.usage()
        return used[0] + own[0], used[1] + own[1], used[2] + own[2], used[3] + own[3], max(used[4], own[4])

    def note_orphan(self) -> None:
        """The one buried last is not the child that is waited for."""
        self.orphans = self.usage() if self.orphans is None else self.add(self.orphans)

    def bury_orphan(self, pid: int) -> None:
        """Wait for one that was killed; one that is no child is left to its parent."""
        status, usage = self._buffers
        if calls.prepare("wait4", pid, status, 0, usage)() == pid:
            self.note_orphan()

    def take_orphans(self, used: Usage) -> Usage:
        """What the child used, with all orphans, which are forgotten."""
        others, self.orphans = self.orphans, None
        if others is None:
            return used
        peak = max(used[4], others[4])
        return used[0] + others[0], used[1] + others[1], used[2] + others[2], used[3] + others[3], peak


def prepare_bury_ended() -> Call:
    """Bury a child that has ended; its number, 0 or less when there is none."""
    return calls.prepare("waitpid", -1, None, os.WNOHANG)


def bury(pid: int) -> None:
    """Wait for a child that was killed; one that is no child is left to its parent."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and waits to be buried."""
    try:
        with open("/proc/{}/stat".format(pid), "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] == b"Z"
    except (OSError, IndexError):
        return True


def make_folder(name: str, above: int) -> None:
    """Make it, of the same owner as the one above, unless there is something of that name."""
    try:
        os.mkdir(name, 0o755, dir_fd=above)
    except FileExistsError:
        return
    found = os.fstat(above)
    os.chown(name, found.st_uid, found.st_gid, dir_fd=above, follow_symlinks=False)
