"""System calls that the oldest supported Python has no function for.

Constants are the kernel's (Source: include/uapi/linux/sched.h, mount.h, prctl.h, capability.h, seccomp.h).
"""

import ctypes
import os
import platform
import signal
import struct
from typing import Iterable, NamedTuple, Optional, Tuple

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
    argument = ctypes.c_ulong(flags | signal.SIGCHLD)
    return _check(_libc.syscall(_numbers().clone, argument, nothing, nothing, nothing, nothing), "clone")


def clone_with_pidfd(flags: int) -> Tuple[int, int]:
    """Like :func:`clone`; also a descriptor of the new process (-1 in the new process itself)."""
    nothing = ctypes.c_void_p(0)
    pidfd = ctypes.c_int(-1)
    argument = ctypes.c_ulong(flags | CLONE_PIDFD | signal.SIGCHLD)
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


def prctl(option: int, argument: int = 0) -> None:
    """prctl with one argument."""
    nothing = ctypes.c_ulong(0)
    _check(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(argument), nothing, nothing, nothing), "prctl")


def set_process_name(name: str) -> None:
    """The name that ``ps`` shows, 15 bytes at most."""
    text = ctypes.create_string_buffer(name.encode()[:15])
    _libc.prctl(ctypes.c_int(PR_SET_NAME), text, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def drop_bounding_set() -> None:
    """No program started from here on can gain a capability."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
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
    """A descriptor that can be read when a child of this process has changed; blocks SIGCHLD."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    mask = struct.pack("Q", 1 << (signal.SIGCHLD - 1)).ljust(128, b"\0")
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
