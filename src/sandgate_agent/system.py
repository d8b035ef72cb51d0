"""System calls that the oldest supported Python has no function for.

Constants are the kernel's (Source: include/uapi/linux/sched.h, mount.h, prctl.h, capability.h, seccomp.h).
"""

import _signal
import ctypes
import os
import platform
import struct
from typing import Callable, Iterable, NamedTuple, Optional, Tuple

# PyDLL keeps the interpreter's lock during a call: after a clone only one of the two would get it back in order.
_libc = ctypes.PyDLL(None, use_errno=True)

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
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION_3 = 0x20080522


class _Numbers(NamedTuple):
    clone: int
    pivot_root: int
    capset: int


_NUMBERS = {
    "x86_64": _Numbers(clone=56, pivot_root=155, capset=126),
    "aarch64": _Numbers(clone=220, pivot_root=41, capset=91),
}


def _numbers() -> _Numbers:
    machine = platform.machine()
    if machine not in _NUMBERS:
        raise OSError("sandgate knows no system call numbers for this processor: " + machine)
    return _NUMBERS[machine]


def _check(result: int, what: str) -> int:
    """The result of a call, or OSError with what was tried."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, "{}: {}".format(what, os.strerror(number)))
    return result


def clone(flags: int) -> int:
    """Fork with namespaces: 0 in the new process, its id in the caller's process namespace otherwise.

    Runs no fork handlers; a role that goes on to run code of others forks again with ``os.fork``.
    """
    nothing = ctypes.c_void_p(0)
    argument = ctypes.c_ulong(flags | _signal.SIGCHLD)
    return _check(_libc.syscall(_numbers().clone, argument, nothing, nothing, nothing, nothing), "clone")


# Where libc keeps a thread's number inside its descriptor. Source: struct pthread in glibc's nptl/descr.h; checked
# against the true number before it is used.
_TID_OFFSETS = {"x86_64": 720, "aarch64": 208}
_CLONE_CHILD_SETTID = 0x01000000
_CLONE_CHILD_CLEARTID = 0x00200000


def find_thread_number() -> int:
    """The address of the number that libc remembers of this thread; 0 when it is not where it is expected."""
    offset = _TID_OFFSETS.get(platform.machine())
    _libc.pthread_self.restype = ctypes.c_ulong
    if offset is None:
        return 0
    address = int(_libc.pthread_self()) + offset
    return address if ctypes.c_int.from_address(address).value == _libc.gettid() else 0


def light_fork(thread_number: int) -> int:
    """Fork without fork handlers, for a process of one thread that holds no locks.

    The handlers of the interpreter and its library reset what only other threads could have left behind, and touch
    hundreds of kilobytes for it, all of which would be copied. ``thread_number`` is of :func:`find_thread_number`:
    libc must know the new number to send signals to this thread.
    """
    flags = _signal.SIGCHLD
    if thread_number:
        flags |= _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
    nothing, address = ctypes.c_void_p(0), ctypes.c_void_p(thread_number)
    # The last two arguments change places between processors, and the other one is not used without its flag.
    return _check(_libc.syscall(_numbers().clone, ctypes.c_ulong(flags), nothing, nothing, address, address), "clone")


def clone_with_pidfd(flags: int) -> Tuple[int, int]:
    """Like :func:`clone`; also a descriptor of the new process (-1 in the new process itself)."""
    nothing = ctypes.c_void_p(0)
    pidfd = ctypes.c_int(-1)
    argument = ctypes.c_ulong(flags | CLONE_PIDFD | _signal.SIGCHLD)
    call = _libc.syscall(_numbers().clone, argument, nothing, ctypes.byref(pidfd), nothing, nothing)
    pid = _check(call, "clone")
    return (pid, pidfd.value) if pid else (0, -1)


def unshare(flags: int) -> None:
    """Leave the namespaces named by ``flags`` for new ones."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Attach a file system."""
    call = _libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode() if options else None
    )
    _check(call, "mount {} on {}".format(kind or source, target))


def prepare_mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> Callable[[], None]:
    """A mount to be made later, any number of times, at the least cost."""
    arguments = (
        ctypes.c_char_p(source.encode()),
        ctypes.c_char_p(target.encode()),
        ctypes.c_char_p(kind.encode()),
        ctypes.c_ulong(flags),
        ctypes.c_char_p(options.encode() if options else None),
    )

    def make() -> None:
        if _libc.mount(*arguments) < 0:
            number = ctypes.get_errno()
            raise OSError(number, "mount {} on {}: {}".format(kind or source, target, os.strerror(number)))

    return make


def enter_namespace(descriptor: int) -> None:
    """Join a namespace; which kind is known by its descriptor."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(0)), "setns")


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """Detach a file system."""
    _check(_libc.umount2(target.encode(), ctypes.c_int(flags)), "umount " + target)


def pivot_root_here() -> None:
    """Make the current directory the root and drop the old one.

    Source: pivot_root(2), "pivot_root(".", ".")": the old root ends up stacked on the new one and is detached.
    """
    _check(_libc.syscall(_numbers().pivot_root, b".", b"."), "pivot_root")
    unmount(".", MNT_DETACH)
    os.chdir("/")


_NOTHING = ctypes.c_ulong(0)


def prctl(option: int, argument: int = 0) -> None:
    """prctl with one argument."""
    _check(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(argument), _NOTHING, _NOTHING, _NOTHING), "prctl")


def set_process_name(name: str) -> None:
    """The name that ``ps`` shows, 15 bytes at most."""
    _libc.prctl(ctypes.c_int(PR_SET_NAME), ctypes.c_char_p(name.encode()[:15]), _NOTHING, _NOTHING, _NOTHING)


_BOUNDING_DROPS = [
    (ctypes.c_int(PR_CAPBSET_DROP), ctypes.c_ulong(number), _NOTHING, _NOTHING, _NOTHING)
    for number in range(_LAST_CAPABILITY + 1)
]


def drop_bounding_set() -> None:
    """No program started from here on can gain a capability."""
    for arguments in _BOUNDING_DROPS:
        if _libc.prctl(*arguments) < 0:
            # The kernel knows fewer capabilities than the interface has bits.
            return


def keep_capabilities(kept: Iterable[int]) -> None:
    """Drop every capability of this process but ``kept``."""
    low, high = 0, 0
    for capability in kept:
        if capability < 32:
            low |= 1 << capability
        else:
            high |= 1 << (capability - 32)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    data = struct.pack("IIIIII", low, low, 0, high, high, 0)
    _check(_libc.syscall(_numbers().capset, header, data), "capset")


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

    def install(self) -> None:
        """Confine this process and all its descendants; needs no_new_privs or CAP_SYS_ADMIN."""
        nothing = ctypes.c_ulong(0)
        address = ctypes.c_void_p(ctypes.addressof(self._program))
        call = _libc.prctl(ctypes.c_int(PR_SET_SECCOMP), ctypes.c_ulong(SECCOMP_MODE_FILTER), address, nothing, nothing)
        _check(call, "install the system call filter")


def open_child_signals() -> int:
    """A descriptor that can be read when a child of this process has changed, or at SIGTERM; blocks both."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGCHLD, _signal.SIGTERM))
    mask = struct.pack("Q", 1 << (_signal.SIGCHLD - 1) | 1 << (_signal.SIGTERM - 1)).ljust(128, b"\0")
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    return _check(_libc.signalfd(ctypes.c_int(-1), mask, ctypes.c_int(flags)), "signalfd")


def drain(descriptor: int) -> None:
    """Read what a signal descriptor has, so that it sleeps again."""
    try:
        while os.read(descriptor, 1024):
            pass
    except BlockingIOError:
        pass


def reap() -> "Iterable[Tuple[int, int, Optional[object]]]":
    """Every child that has ended: (pid, wait status, resource usage)."""
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status, usage


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
