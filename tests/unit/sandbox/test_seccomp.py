"""What the filter answers to each of the kernel's calls, found by running its program."""

import errno
import signal
import socket
import stat
from functools import cache

import pytest

from sandgate.sandbox.seccomp import ALLOWED, build_filter, find_library
from sandgate_agent.walls import USER_ID
from tests.runtime.kernel import ALLOW, KILL, REFUSE, UNKNOWN, architecture, judge, numbers

pytestmark = pytest.mark.skipif(find_library() is None, reason="libseccomp is not installed")

# Allowed with some arguments.
CHECKED = {
    "clone", "ioctl", "prctl", "sched_setscheduler", "socket", "socketpair", "mknod", "mknodat", "mmap", "memfd_create",
    "shmget",
}  # fmt: skip
# Answered in another way than by a refusal, whatever the arguments or when they are all ones.
ANSWERED = {"clone3", "sync", "mmap", "memfd_create"}
NAMESPACES = {
    "mount": 0x20000,
    "cgroup": 1 << 25,
    "uts": 1 << 26,
    "ipc": 1 << 27,
    "user": 1 << 28,
    "pid": 1 << 29,
    "net": 1 << 30,
}
# Never to be let through, whoever changes the list and for whatever reason.
DANGEROUS = """
    acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init finit_module fsconfig
    fsmount fsopen fspick get_kernel_syms init_module inotify_init inotify_init1 io_setup io_uring_enter
    io_uring_register io_uring_setup ioperm iopl ioprio_set kcmp kexec_file_load kexec_load keyctl
    landlock_create_ruleset lookup_dcookie mbind memfd_secret migrate_pages modify_ldt mount mount_setattr
    move_mount move_pages name_to_handle_at open_by_handle_at open_tree perf_event_open personality pidfd_getfd
    pivot_root process_madvise process_mrelease process_vm_readv process_vm_writev ptrace quotactl quotactl_fd
    reboot request_key sched_setattr sched_setparam seccomp set_mempolicy setdomainname setfsgid setfsuid
    sethostname setns settimeofday splice swapoff swapon sysfs syslog tee umount2 unshare uselib userfaultfd ustat
    vhangup vm86 vmsplice
""".split()  # noqa: SIM905 - a list of names a line each is unreadable


@cache
def program() -> bytes:
    """The filter of this machine."""
    return build_filter()


def say(name: str, *arguments: int) -> int:
    """The filter's answer to a call by name."""
    return judge(program(), numbers()[name], *arguments)


def test_surface() -> None:
    """The calls that are let through whatever their arguments are the list, and nothing beyond it."""
    known = numbers()
    open_ = {name for name in known if say(name) == ALLOW and say(name, *[2**64 - 1] * 6) == ALLOW}
    assert open_ - CHECKED == set(ALLOWED) & set(known)
    refused = {name for name in known if say(name, *[2**64 - 1] * 6) == REFUSE}
    assert set(known) - open_ - refused == ANSWERED


def test_dangerous_calls_are_refused() -> None:
    """Each by name, so that no change of the list lets one of them slip in."""
    assert not set(DANGEROUS) & set(ALLOWED)
    assert {name: say(name) for name in DANGEROUS if name in numbers() and say(name) != REFUSE} == {}


def test_calls_of_tomorrow_are_refused() -> None:
    """A number that nobody knows yet is not let through."""
    assert {judge(program(), number) for number in range(600, 700)} == {REFUSE}


def test_clone3_is_unknown() -> None:
    """Libraries then fall back to a call whose flags can be checked."""
    assert say("clone3") == UNKNOWN


@pytest.mark.parametrize("name", NAMESPACES)
def test_no_new_namespaces(name: str) -> None:
    """Processes and threads can be made, namespaces cannot, together with whatever other flag."""
    assert say("clone", signal.SIGCHLD) == ALLOW
    assert say("clone", 0x3D0F00) == ALLOW
    for others in (0, signal.SIGCHLD, 0x3D0F00):
        assert say("clone", NAMESPACES[name] | others) == REFUSE


@pytest.mark.parametrize("flag", [0x2000, 0x8000, 0x800000])
def test_no_children_of_others(flag: int) -> None:
    """A process is nobody's child but its maker's, and can be traced by nobody."""
    assert say("clone", flag | signal.SIGCHLD) == REFUSE


def test_sockets() -> None:
    """Streams and datagrams of this machine and of IP, and no others."""
    let = {
        (family, kind)
        for family in range(48)
        for kind in (1, 2, 3, 4, 5, 6, 10)
        for protocol in (0, 6, 17, 255)
        if say("socket", family, kind, protocol) == ALLOW and family != socket.AF_NETLINK
    }
    both = {(family, kind) for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6) for kind in (1, 2)}
    assert let == both | {(socket.AF_UNIX, 5)}
    assert say("socket", socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) == ALLOW
    odd = [
        (kind, protocol) for kind in (1, 2) for protocol in range(1, 300) if (kind, protocol) not in {(1, 6), (2, 17)}
    ]
    assert {say("socket", family, *each) for family in (2, 10) for each in odd} == {REFUSE}
    assert {family for family in range(48) if say("socketpair", family, 1, 0) == ALLOW} == {socket.AF_UNIX}
    assert say("socket", socket.AF_NETLINK, socket.SOCK_RAW, 0) == ALLOW
    assert {say("socket", socket.AF_NETLINK, socket.SOCK_RAW, protocol) for protocol in range(1, 24)} == {REFUSE}


def test_terminals() -> None:
    """Nothing can be typed into a terminal, however the request is written."""
    for request in (0x5412, 0x541C, 0x5423):
        assert say("ioctl", 0, request) == REFUSE
        assert say("ioctl", 0, request | 1 << 32) == REFUSE
        assert say("ioctl", 0, request | 0xFFFFFFFF << 32) == REFUSE
    assert say("ioctl", 0, 0x5413) == ALLOW


def test_nobody_waits_for_a_socket_that_lingers() -> None:
    """The option is taken and ignored, however it is written; its neighbours are set."""
    ignored = 0x00050000
    for level, option in ((1, 13), (1 | 1 << 32, 13), (1, 13 | 1 << 40)):
        assert say("setsockopt", 3, level, option) == ignored
    assert {say("setsockopt", 3, level, option) for level, option in ((1, 2), (6, 13), (1, 12), (0, 13))} == {ALLOW}


def test_no_core_dumps_are_asked_for() -> None:
    """The limit stays what it is, however the change is written, and can be looked at."""
    ignored = 0x00050000
    for core in (4, 4 | 1 << 32):
        assert say("setrlimit", core, 1) == ignored
        assert {say("prlimit64", 0, core, new) for new in (1, 1 << 32, 2**64 - 1)} == {ignored}
        assert say("prlimit64", 0, core, 0, 1) == ALLOW
    assert {say("setrlimit", 7, 1), say("prlimit64", 0, 7, 1)} == {ALLOW}


def test_no_huge_pages() -> None:
    """By none of the ways to ask for them; ordinary memory is there."""
    assert say("mmap", 0, 1, 3, 0x22) == ALLOW
    assert {say("mmap", 0, 1, 3, flags) for flags in (0x40022, 0x40000 | 30 << 26, 2**64 - 1)} == {0x5000C}
    assert (say("memfd_create", 0, 3), say("memfd_create", 0, 5)) == (ALLOW, 0x50016)
    assert (say("shmget", 0, 1, 0o1600), say("shmget", 0, 1, 0o5600)) == (ALLOW, REFUSE)


def test_what_is_ignored_or_unknown() -> None:
    """Advice that would cost others, and what the kernel would run for a socket."""
    assert say("sync") == say("fadvise64", 3, 0, 0, 4) == say("fadvise64", 3, 0, 0, 4 | 1 << 32) == 0x00050000
    assert {say("fadvise64", 3, 0, 0, advice) for advice in (0, 1, 2, 3, 5)} == {ALLOW}
    assert (say("madvise", 0, 0, 12), say("madvise", 0, 0, 4)) == (0x50016, ALLOW)
    assert {say("setsockopt", 3, 1, option) for option in (26, 50, 51, 52)} == {REFUSE}
    assert (say("setsockopt", 3, 6, 31), say("setsockopt", 3, 6, 1)) == (0x50002, ALLOW)


def test_files_that_are_devices() -> None:
    """A named pipe can be made, a device cannot."""
    for name, before in (("mknod", 1), ("mknodat", 2)):
        if name in numbers():
            assert say(name, *[0] * before, stat.S_IFIFO | 0o666) == ALLOW
            for kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFREG, 0):
                assert say(name, *[0] * before, kind | 0o666) == REFUSE


def test_policies() -> None:
    """No real-time policy, with or without the flag that resets it."""
    allowed = {policy for policy in range(16) if say("sched_setscheduler", 0, policy) == ALLOW}
    assert allowed == {0, 3, 5}
    assert say("sched_setscheduler", 0, 0x40000001) == REFUSE


def test_process_switches() -> None:
    """No switch that brings capabilities, filters, or a change of what memory looks like."""
    for option in (9, 22, 24, 26, 28, 31, 33, 35, 43, 44, 47, 51, 57, 58, 60, 62, 65):
        assert say("prctl", option) == REFUSE
    assert say("prctl", 15) == ALLOW


def test_one_abi_only() -> None:
    """A call by another processor's numbers, of 32 bits or x32, is the end of the process."""
    for arch in (0x40000003, 0x40000028, 0xC000003E, 0xC00000B7, 0):
        if arch != architecture():
            assert judge(program(), 1, arch=arch) in (KILL, 0)
    if architecture() == 0xC000003E:
        assert {judge(program(), 0x40000000 | number) for number in range(600)} == {KILL}


# Answered without anything done, to whoever is to be taken for root.
TOLD = {
    "getuid", "geteuid", "getgid", "getegid", "chown", "lchown", "fchown", "fchownat", "setuid", "setgid", "setreuid",
    "setregid", "setresuid", "setresgid", "setgroups",
}  # fmt: skip


@pytest.mark.parametrize("value", [0, 1, 33, 1000, 2**31, 2**32 - 1, 2**64 - 1])
def test_who_is_told_to_be_root_has_nothing_more(value: int) -> None:
    """Every call is answered as for others, but those that would say or change who somebody is, which do nothing."""
    as_root, known = build_filter(as_root=True), numbers()
    for arguments in ([value] * 6, [value, *[0] * 5], [0, *[value] * 5]):
        said = {name: judge(as_root, number, *arguments) for name, number in known.items()}
        others = {name for name, answer in said.items() if answer != judge(program(), known[name], *arguments)}
        assert others <= {*TOLD, "getresuid", "getresgid"}
        assert {said[name] for name in others & TOLD} == {0x00050000}
        assert {name for name in TOLD if said[name] == ALLOW} <= {"setresuid", "setresgid", "setgroups"}
    assert {judge(as_root, number) for number in range(600, 700)} == {REFUSE}
    assert judge(as_root, known["getuid"], arch=architecture() + 1) == KILL


def test_children_become_the_user_though_they_are_told_to_be_root() -> None:
    """As the agent does it, and in no other way: nobody stays, or becomes, somebody else by it."""
    as_root, known = build_filter(as_root=True), numbers()
    for name in ("setresuid", "setresgid"):
        assert judge(as_root, known[name], *[USER_ID] * 3) == ALLOW
        for others in ((0, 0, 0), (1000, 1000, 0), (0, 1000, 1000), (1000, 0, 1000), (2**32 - 1, 1000, 1000)):
            assert judge(as_root, known[name], *others) == 0x00050000
    assert judge(as_root, known["setgroups"], 0, 0) == ALLOW
    assert judge(as_root, known["setgroups"], 1, 2**40) == 0x00050000


def test_accounts_can_be_added_where_no_audit_log_can_be_written() -> None:
    """It is said that there is none; other queries of the kernel are as for others."""
    as_root, call = build_filter(as_root=True), numbers()["socket"]
    for protocol in range(24):
        said = judge(as_root, call, socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        ordinary = judge(program(), call, socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        assert said == (0x00050000 | errno.EPROTONOSUPPORT if protocol == 9 else ordinary)
