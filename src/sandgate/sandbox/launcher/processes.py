"""Processes by descriptor, so that a number that was used again is never hit."""

import os
import signal
from contextlib import suppress


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


def kill(pidfd: int) -> None:
    """Kill a process; one that has ended is no error."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    """The processes whose parent is ``pid`` now."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if parent_of(int(name)) == pid:
                    found.append(int(name))
    return found


def kill_tree(pid: int, rounds: int = 100) -> None:
    """Stop a process, then kill everything below it and it: for processes without a namespace to kill at once."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    for _round in range(rounds):
        found = [child for child in children_of(pid) if not _is_zombie(child)]
        if not found:
            break
        for child in found:
            kill_tree(child, rounds)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True
