"""Copies the files of one sandbox to another one, in which no code has run yet.

A process of its own does it, counted with the sandbox that gets the files. It makes a mount of the other one's file
system that is attached nowhere, can only be read, and shows the owners by the ids of the new sandbox; then it enters
the user and mount namespace of the new one, becomes its user, and keeps one power of the root in there: to read what
the user has closed. So it can reach nothing but what the user in the new sandbox can, and the files that are to be
copied; and nothing of either sandbox sees it.
"""

import errno
import json
import math
import os
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sandgate.core.limits import MIB
from sandgate.sandbox.launcher import mounts, processes
from sandgate.sandbox.launcher.attaching import Namespaces
from sandgate.sandbox.launcher.cgroup import Group
from sandgate.sandbox.launcher.copy_verbs import CopyFiles, Packing
from sandgate.sandbox.launcher.errand import Errand, Then
from sandgate.sandbox.launcher.life import Life
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.tree_copy import TooMuch, TreeCopy
from sandgate_agent import calls, system

# Of such a process, beyond what it has of the launcher.
_LEAST_MEMORY_BYTES, _MEMORY_OF_ENTRY_BYTES = 128 * MIB, 1024
_USER_INSIDE = 1000
# Source: include/uapi/linux/securebits.h; powers stay when the user changes.
_PR_SET_SECUREBITS, _NO_SETUID_FIXUP = 28, 0x4
# A kernel that shows no file system in memory with other owners (before 6.3) says one of these.
_UNABLE = (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Ends:
    """Of a copy: the mount namespace whose root is copied from, and what it is copied to and counted with."""

    source_mount: int
    target: Namespaces
    group: Group

    def descriptors(self) -> list[int]:
        """What the process needs."""
        return [self.source_mount, self.target.user, self.target.mount]


def serve(
    sandbox: Life,
    source: Life | None,
    wanted: CopyFiles,
    answer: Callable[[Mapping[str, Any]], None],
    refuse: Callable[[str], None],
) -> Errand | None:
    """Give a sandbox files of another one, which stands still; it is answered when it has them. When that fails it may
    have some.

    None when that cannot be done here, which is answered. Raises ``OSError``, and then nothing is answered.
    """
    if source is None:
        raise OSError(errno.ENOENT, "there is no such sandbox to copy from")
    if source is sandbox:
        # What is copied to is emptied first.
        raise OSError(errno.EINVAL, "a sandbox is no copy of itself")
    shown = source.open_files()
    if shown is None:
        answer({"lack": "sandboxes of this class, or with files on the disk, share none"})
        return None
    try:
        source.freezing.check()
        sandbox.files.check_not_filled()
        errand = _enter(sandbox, shown, wanted, partial(_tell_of, source, answer, refuse))
    finally:
        os.close(shown)
    sandbox.files.note_filling(errand)
    source.files.note_copying(errand)
    return errand


def _tell_of(
    source: Life,
    answer: Callable[[Mapping[str, Any]], None],
    refuse: Callable[[str], None],
    said: bytes | None,
    reason: str,
) -> None:
    """As :func:`tell`, and whether it is the other one that has ended."""
    if said is None and source.ending:
        answer({"source_ended": source.reason})
    else:
        tell(answer, refuse, said, reason)


def tell(
    answer: Callable[[Mapping[str, Any]], None], refuse: Callable[[str], None], said: bytes | None, reason: str
) -> None:
    """Pass on how it went."""
    if said is None:
        refuse(f"its files could not be copied: {reason}")
    else:
        answer(json.loads(said))


def _enter(sandbox: Life, source_mount: int, wanted: CopyFiles, then: Then) -> Errand:
    def begin(reactor: Reactor, target: Namespaces, group: Group) -> Errand:
        ends = Ends(source_mount, target, group)
        return Errand(
            reactor, lambda: json.dumps(_copy(ends, wanted)).encode(), ends.descriptors(), wanted.within_s, then
        )

    return sandbox.enter(begin)


def _copy(ends: Ends, wanted: CopyFiles) -> Mapping[str, Any]:
    """In the process. Raises ``OSError``."""
    bound(ends.group, wanted)
    try:
        source = _show_source(ends)
    except OSError as error:
        if error.errno in _UNABLE:
            return {"lack": f"this kernel does not show files with other owners: {error.strerror}"}
        raise
    become_user(ends.target)
    os.umask(0)
    target = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return TreeCopy(source, target, wanted.most_entries, wanted.most_bytes).run(wanted.tops).told()
    except TooMuch:
        return {"too_much": True}


def bound(group: Group | None, wanted: CopyFiles | Packing) -> None:
    """Count this process with a group, and bound it for itself, whatever it is given to read. Raises ``OSError``.

    It may remember something of each entry.
    """
    if group is not None:
        group.enter()
    most_bytes = _LEAST_MEMORY_BYTES + _MEMORY_OF_ENTRY_BYTES * wanted.most_entries + _data_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))
    most_s = math.ceil(wanted.within_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most_s, most_s))


def _data_bytes() -> int:
    """What it has of the launcher. Source: proc_pid_statm(5)."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[5]) * resource.getpagesize()


def _show_source(ends: Ends) -> int:
    """The root of the sandbox without anything that is mounted in it. Raises ``OSError``."""
    system.enter_namespace(ends.source_mount)
    source = mounts.bind(Path("/"))
    mounts.confine(source, read_only=True, user_namespace=ends.target.user)
    return source


def become_user(target: Namespaces) -> None:
    """Enter a sandbox as its user, with the power to read what is closed to him. Raises ``OSError``."""
    launcher = os.getppid()
    # The user namespace first: it brings the power to enter the other.
    system.enter_namespace(target.user)
    system.enter_namespace(target.mount)
    system.prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP)
    system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
    calls.run([*system.prepare_identity(_USER_INSIDE), system.prepare_capabilities((system.CAP_DAC_READ_SEARCH,))])
    processes.end_with(launcher)
