"""The system call filter of user code, made by libseccomp and handed to agents as bytes.

Everything is refused with EPERM but the calls of ``ALLOWED``, a few more whose arguments are checked, and
``clone3``, which answers ENOSYS so that libc falls back to ``clone``, whose flags can be checked.
"""

import ctypes
import ctypes.util
import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sandgate.core.errors import MechanismFault

_ACT_ALLOW = 0x7FFF0000
_ACT_ERRNO = 0x00050000
_FLTATR_ACT_BADARCH = 2
_FLTATR_CTL_OPTIMIZE = 8
_ACT_KILL_PROCESS = 0x80000000
_CMP_EQ = 4
_CMP_MASKED_EQ = 7
_NR_SCMP_ERROR = -1

# Source: include/uapi/linux/sched.h. All namespaces, and CLONE_PTRACE, CLONE_UNTRACED and CLONE_PARENT: a child of
# the agent's would be reaped by it as its own.
_CLONE_REFUSED = 0x7E020000 | 0x00002000 | 0x00800000 | 0x00008000
_TIOCSTI, _TIOCLINUX, _TIOCSETD = 0x5412, 0x541C, 0x5423
# Source: include/uapi/asm-generic/socket.h, include/uapi/linux/tcp.h. Programs that the kernel runs on what comes in.
_SO_PROGRAMS = (26, 50, 51, 52)
_TCP_ULP = 31
# Source: include/uapi/asm-generic/mman.h and resource.h, include/uapi/linux/fadvise.h, memfd.h and shm.h
_MAP_HUGETLB, _MFD_HUGETLB, _SHM_HUGETLB = 0x40000, 0x4, 0o4000
_MADV_MERGEABLE, _FADV_DONTNEED = 12, 4
_RLIMIT_CORE = 4
_SOCK_TYPE_MASK = 0xF
# Source: include/uapi/linux/netlink.h
_NETLINK_AUDIT = 9
_FILE_TYPE_MASK = 0o170000
# Source: include/uapi/linux/bpf_common.h
_LOAD, _JUMP_EQUAL, _ANSWER = 0x20, 0x15, 0x06
_ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 4, 16

ALLOWED: Sequence[str] = tuple(
    """
    accept accept4 access alarm arch_prctl bind brk capget chdir chmod chown clock_getres clock_gettime
    clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl
    fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex
    futex_requeue futex_wait futex_waitv futex_wake futimesat get_mempolicy get_robust_list get_thread_area getcpu
    getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid
    getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
    getuid getxattr ioprio_get kill lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek
    lsetxattr lstat madvise map_shadow_stack membarrier mincore mkdir mkdirat mlock mlock2 mlockall mprotect
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd
    msync munlock munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe
    pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll pread64 preadv preadv2 prlimit64 pselect6 pwrite64 pwritev
    pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr rename
    renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity
    sched_yield select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_robust_list
    set_thread_area set_tid_address setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid
    setreuid setrlimit setsid setsockopt setuid setxattr shmat shmctl shmdt shutdown sigaltstack signalfd signalfd4
    stat statfs statx symlink symlinkat sync_file_range syncfs sysinfo tgkill time timer_create timer_delete
    timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate
    umask uname unlink unlinkat utime utimensat utimes vfork wait4 waitid write writev
    """.split()  # noqa: SIM905 - a list of names a line each is unreadable
)

# Seen and answered with ENOSYS: libraries then use what came before.
_UNKNOWN: Sequence[str] = ("clone3",)

_PRCTL_ALLOWED: Sequence[int] = (
    *(1, 2, 3, 4, 7, 8, 13, 14, 15, 16, 21, 23, 27, 29, 30, 36, 37, 38, 39, 40, 41, 42, 45, 48, 52, 53, 59),
    0x53564D41,
)


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def find_library() -> str | None:
    """The name that libseccomp can be loaded by; None when it is not installed."""
    for name in ("libseccomp.so.2", ctypes.util.find_library("seccomp")):
        if name:
            try:
                ctypes.CDLL(name)
            except OSError:
                continue
            return name
    return None


class _Builder:
    """libseccomp's context, with its numbers turned into exceptions."""

    def __init__(self) -> None:
        name = find_library()
        if name is None:
            raise MechanismFault("libseccomp is not installed; install it with: apt-get install libseccomp2")
        self._lib = ctypes.CDLL(name)
        self._lib.seccomp_init.restype = ctypes.c_void_p
        self._lib.seccomp_init.argtypes = (ctypes.c_uint32,)
        self._lib.seccomp_rule_add_array.argtypes = (
            ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison),
        )  # fmt: skip
        for function in ("seccomp_attr_set", "seccomp_export_bpf", "seccomp_release"):
            getattr(self._lib, function).argtypes = None
        self._lib.seccomp_arch_native.restype = ctypes.c_uint32
        self._context = ctypes.c_void_p(self._lib.seccomp_init(_ACT_ERRNO | errno.EPERM))
        self._set(_FLTATR_ACT_BADARCH, _ACT_KILL_PROCESS)
        # Before 2.5 there is no binary tree; the filter is the same, and slower.
        with suppress(MechanismFault):
            self._set(_FLTATR_CTL_OPTIMIZE, 2)

    def _check(self, result: int, what: str) -> None:
        if result < 0:
            raise MechanismFault(f"libseccomp: {what}: {os.strerror(-result)}")

    def _set(self, attribute: int, value: int) -> None:
        self._check(self._lib.seccomp_attr_set(self._context, attribute, ctypes.c_uint32(value)), "set an attribute")

    def number(self, name: str) -> int:
        """The number of a call on this processor, negative when there is none."""
        return int(self._lib.seccomp_syscall_resolve_name(name.encode()))

    def architecture(self) -> int:
        """This processor, as the kernel names it to a filter."""
        return int(self._lib.seccomp_arch_native())

    def add(self, action: int, name: str, *comparisons: tuple[int, int, int, int]) -> None:
        """One rule; a call that this libseccomp or this processor does not know stays refused."""
        number = self.number(name)
        if number == _NR_SCMP_ERROR:
            return
        array = (_Comparison * max(1, len(comparisons)))(*(_Comparison(*item) for item in comparisons))
        self._check(self._lib.seccomp_rule_add_array(self._context, action, number, len(comparisons), array), name)

    def export(self) -> bytes:
        """The program as the kernel's instructions."""
        descriptor = os.memfd_create("sandgate-filter", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            self._check(self._lib.seccomp_export_bpf(self._context, ctypes.c_int(descriptor)), "export")
            file.seek(0)
            return file.read()

    def release(self) -> None:
        """Free the context."""
        self._lib.seccomp_release(self._context)


def _add_sockets(builder: _Builder) -> None:
    """Sockets of this machine, TCP and UDP, and the queries of ``getifaddrs``.

    Whoever asks for another family or protocol has the kernel load the module of it.
    """
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        of_kind = (1, _CMP_MASKED_EQ, _SOCK_TYPE_MASK, kind)
        builder.add(_ACT_ALLOW, "socket", (0, _CMP_EQ, socket.AF_UNIX, 0), of_kind)
    for family in (socket.AF_INET, socket.AF_INET6):
        for kind, own in ((socket.SOCK_STREAM, socket.IPPROTO_TCP), (socket.SOCK_DGRAM, socket.IPPROTO_UDP)):
            of_kind = (1, _CMP_MASKED_EQ, _SOCK_TYPE_MASK, kind)
            for protocol in (0, own):
                builder.add(_ACT_ALLOW, "socket", (0, _CMP_EQ, family, 0), of_kind, (2, _CMP_EQ, protocol, 0))
    builder.add(_ACT_ALLOW, "socket", (0, _CMP_EQ, socket.AF_NETLINK, 0), (2, _CMP_EQ, 0, 0))
    builder.add(_ACT_ALLOW, "socketpair", (0, _CMP_EQ, socket.AF_UNIX, 0))


def _add_huge_pages(builder: _Builder) -> None:
    """Huge pages that the host has set aside are refused as if it had none: no control group counts them."""
    for name, place, flag, error in (
        ("mmap", 3, _MAP_HUGETLB, errno.ENOMEM),
        ("memfd_create", 1, _MFD_HUGETLB, errno.EINVAL),
        ("shmget", 2, _SHM_HUGETLB, errno.EPERM),
    ):
        builder.add(_ACT_ALLOW, name, (place, _CMP_MASKED_EQ, flag, 0))
        if error != errno.EPERM:
            builder.add(_ACT_ERRNO | error, name, (place, _CMP_MASKED_EQ, flag, flag))


def _add_checked(builder: _Builder) -> None:
    """Calls that are allowed with some arguments."""
    builder.add(_ACT_ALLOW, "clone", (0, _CMP_MASKED_EQ, _CLONE_REFUSED, 0))
    builder.add(_ACT_ALLOW, "ioctl")
    # Named pipes, and no devices.
    for name, place in (("mknod", 1), ("mknodat", 2)):
        builder.add(_ACT_ALLOW, name, (place, _CMP_MASKED_EQ, _FILE_TYPE_MASK, stat.S_IFIFO))
    for option in _PRCTL_ALLOWED:
        builder.add(_ACT_ALLOW, "prctl", (0, _CMP_EQ, option, 0))
    # A real-time policy would starve the neighbours; the ordinary ones may be named.
    for policy in (0, 3, 5):
        builder.add(_ACT_ALLOW, "sched_setscheduler", (1, _CMP_EQ, policy, 0))
    _add_sockets(builder)
    _add_huge_pages(builder)
    # What an environment writes is in memory; the host's disks, and whoever waits for them, are not its affair.
    builder.add(_ACT_ERRNO, "sync")


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What to answer to a call whose arguments at the places are the values, in their lower 32 bits.

    ``error`` 0 is success without anything done, None that it is let through. ``given`` is the place of a pointer that
    must not be null besides.
    """

    values: tuple[tuple[int, int], ...]
    error: int | None
    given: int | None = None


# libseccomp has no "every value but these" in 32 bits, and 32 bits of these arguments are all that the kernel looks at.
_Answered = Mapping[str, Sequence[_Verdict]]
_ANSWERED: _Answered = {
    # Characters pushed into a terminal, and drivers of modems, printers and radios put on one.
    "ioctl": tuple(_Verdict(((1, request),), errno.EPERM) for request in (_TIOCSTI, _TIOCLINUX, _TIOCSETD)),
    "setsockopt": (
        # Whoever closes a socket that lingers last has to wait, for as long as was asked for, and a process can see to
        # it that the last is somebody else: it sends its sockets to where they are never received.
        _Verdict(((1, socket.SOL_SOCKET), (2, socket.SO_LINGER)), 0),
        *(_Verdict(((1, socket.SOL_SOCKET), (2, option)), errno.EPERM) for option in _SO_PROGRAMS),
        _Verdict(((1, socket.IPPROTO_TCP), (2, _TCP_ULP)), errno.ENOENT),
    ),
    # There are no core dumps. At the limit that says so the host's handler of them is not even asked, and at 0 it is.
    "setrlimit": (_Verdict(((0, _RLIMIT_CORE),), 0),),
    "prlimit64": (_Verdict(((1, _RLIMIT_CORE),), 0, given=2),),
    # Files that all environments are shown would have to be read from the disk again.
    "fadvise64": (_Verdict(((3, _FADV_DONTNEED),), 0),),
    # As of a kernel that merges no pages: who shares a page with whom can be measured.
    "madvise": (_Verdict(((2, _MADV_MERGEABLE),), errno.EINVAL),),
}

# To whom files belong is nothing that a package manager within the walls can change, and it cannot do without. So it is
# told that it is root, and that whatever it gives away was given away; the kernel does less for it than for others.
_NOT_DONE = (_Verdict((), 0),)
# The same as in sandgate_agent.walls.
_USER_ID = 1000
# A forker's children become the user with these, and what the user asks for with them changes nothing.
_BECOME_USER = _Verdict(tuple((place, _USER_ID) for place in range(3)), None)
_ANSWERED_AS_ROOT: _Answered = {
    **dict.fromkeys(("getuid", "geteuid", "getgid", "getegid"), _NOT_DONE),
    **dict.fromkeys(("chown", "lchown", "fchown", "fchownat"), _NOT_DONE),
    **dict.fromkeys(("setuid", "setgid", "setreuid", "setregid"), _NOT_DONE),
    **dict.fromkeys(("setresuid", "setresgid"), (_BECOME_USER, *_NOT_DONE)),
    "setgroups": (_Verdict(((0, 0),), None), *_NOT_DONE),
    # They would have to write who it is; shells that cannot find out like that ask the others.
    **dict.fromkeys(("getresuid", "getresgid"), (_Verdict((), errno.ENOSYS),)),
    # What adds accounts gives up unless it can write to the audit log, or the kernel has none.
    "socket": (_Verdict(((0, socket.AF_NETLINK), (2, _NETLINK_AUDIT)), errno.EPROTONOSUPPORT),),
}

_Instruction = tuple[int, int, int, int]


def _word(argument: int, half: int = 0) -> _Instruction:
    """Load half of an argument. Source: include/uapi/linux/seccomp.h; little end first, as on all that is supported."""
    return (_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8 * argument + 4 * half)


def _instructions_of(answer: _Verdict) -> list[_Instruction]:
    """Answer, or go on behind these instructions."""
    action = _ACT_ALLOW if answer.error is None else _ACT_ERRNO | answer.error
    end: list[_Instruction] = [(_ANSWER, 0, 0, action)]
    if answer.given is not None:
        # Either half that is not 0 is enough.
        end = [_word(answer.given), (_JUMP_EQUAL, 0, 2, 0), _word(answer.given, 1), (_JUMP_EQUAL, 1, 0, 0), *end]
    for place, value in reversed(answer.values):
        end = [_word(place), (_JUMP_EQUAL, 0, len(end), value), *end]
    return end


def _answers_first(answered: _Answered, number: Callable[[str], int], architecture: int) -> bytes:
    """Instructions to put before all others, by which calls are answered on account of their arguments."""
    made: list[_Instruction] = [(_LOAD, 0, 0, 0)]
    for name, answers in answered.items():
        own = [instruction for answer in answers for instruction in _instructions_of(answer)]
        # What is not answered is judged by the rest, which loads the number again.
        own.append((_LOAD, 0, 0, 0))
        if number(name) >= 0:
            made += [(_JUMP_EQUAL, 0, len(own), number(name)), *own]
    # Calls by the numbers of another processor are killed behind these.
    return _pack((_LOAD, 0, 0, _ARCHITECTURE_OFFSET), (_JUMP_EQUAL, 0, len(made), architecture), *made)


def _pack(*instructions: _Instruction) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def build_filter(*, as_root: bool = False) -> bytes:
    """The filter for this machine's processor, 8 bytes an instruction. Raises ``MechanismFault``.

    ``as_root``: programs are told that they are root, and that whatever belongs to whom was changed as they wished. It
    lets through what the other lets through, and less.
    """
    builder = _Builder()
    try:
        for name in ALLOWED:
            builder.add(_ACT_ALLOW, name)
        for name in _UNKNOWN:
            builder.add(_ACT_ERRNO | errno.ENOSYS, name)
        _add_checked(builder)
        answered = {**_ANSWERED, **_ANSWERED_AS_ROOT} if as_root else _ANSWERED
        return _answers_first(answered, builder.number, builder.architecture()) + builder.export()
    finally:
        builder.release()


_OF_ZYGOTES: Sequence[str] = tuple(
    """
    capset chroot clone mount mount_setattr move_mount open_tree pivot_root prctl seccomp sethostname setns umount2
    unshare
    """.split()  # noqa: SIM905 - as above
)


def build_zygote_filter() -> bytes:
    """For zygotes that run packages of users: with what makes walls, and nothing else. Raises ``MechanismFault``."""
    builder = _Builder()
    try:
        for name in (*ALLOWED, *_OF_ZYGOTES):
            builder.add(_ACT_ALLOW, name)
        for name in _UNKNOWN:
            builder.add(_ACT_ERRNO | errno.ENOSYS, name)
        _add_checked(builder)
        return builder.export()
    finally:
        builder.release()


def find_filter() -> bytes | None:
    """The filter for whoever can do without; None where it cannot be made."""
    try:
        return build_filter()
    except MechanismFault:
        return None
