"""Processes by descriptor, so that a number that was used again is never hit."""

import errno
import os
import signal
from collections.abc import Mapping
from contextlib import suppress

from sandgate_agent import system


def pid_of(pidfd: int) -> int:
    """The process id behind a descriptor, as this process sees it; -1 when it has ended."""
    with open(f"/proc/self/fdinfo/{pidfd}") as info:
        for line in info:
            if line.startswith("Pid:"):
                return int(line.split()[1])
    return -1


def is_pidfd(descriptor: int) -> bool:
    """Whether a descriptor stands for a process."""
    target = os.readlink(f"/proc/self/fd/{descriptor}")
    # A file of a file system of its own since Linux 6.9.
    return target == "anon_inode:[pidfd]" or target.startswith("pidfd:[")


def parent_of(pid: int) -> int:
    """The parent of a process. Raises ``OSError`` when it has ended."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return int(stat.read().rpartition(b")")[2].split()[1])


def map_ids(pid: int, host_ids: Mapping[int, int]) -> None:
    """Give a process's user namespace its users and groups, each id inside with the one outside. Raises ``OSError``."""
    mapping = "".join(f"{inside} {outside} 1\n" for inside, outside in host_ids.items()).encode()
    for name in ("uid_map", "gid_map"):
        # In one write: the kernel takes no second one.
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, mapping)
        finally:
            os.close(descriptor)


def kill(pidfd: int) -> None:
    """Kill a process; one that has ended is no error."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def check_lives(pidfd: int) -> None:
    """Raises ``OSError`` when a process has ended and was buried."""
    signal.pidfd_send_signal(pidfd, 0)


def end_with(parent: int) -> None:
    """Be killed by the kernel when the parent ends. Raises ``ProcessLookupError`` when it has ended before.

    To be called again by whoever has become another user: the kernel forgets it then. Source: prctl(2),
    PR_SET_PDEATHSIG; commit_creds() in kernel/cred.c.
    """
    system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise ProcessLookupError(errno.ESRCH, "the process that has started it is gone")


def abandon(pid: int) -> None:
    """Kill a child that waits for a word which will not come, and bury it; no other process can have its number."""
    if pid > 0:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def parents() -> dict[int, int]:
    """The parent of every process of the machine, at this moment."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                found[int(name)] = parent_of(int(name))
    return found


def tree(root: int) -> list[int]:
    """A process and everything below it."""
    known = parents()
    found = [root]
    for parent in found:
        found.extend(pid for pid, its_parent in known.items() if its_parent == parent)
    return found


def kill_tree(root: int, rounds: int = 100) -> None:
    """Kill a process and everything below it, where there is no namespace to kill at once.

    Everything is stopped first: what is stopped can neither fork nor lose its place in the tree.
    """
    stopped: set[int] = set()
    for _round in range(rounds):
        fresh = set(tree(root)) - stopped
        if not fresh:
            break
        _signal_all(fresh, signal.SIGSTOP)
        stopped |= fresh
    _signal_all(stopped, signal.SIGKILL)


def _signal_all(pids: set[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
