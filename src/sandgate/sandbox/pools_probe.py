"""What all processes of the machine share, and what no control group bounds, but a setting of the kernel.

Standard library only.
"""

import os
from pathlib import Path

from sandgate.core.states import Isolation
from sandgate.sandbox.probe import Ability

_NEITHER: frozenset[Isolation] = frozenset()
# The kernel's smallest record of an open file, which is counted as memory of the control group that opened it.
# Source: struct file, include/linux/fs.h, 192 bytes since Linux 6.12 and more before.
FILE_BYTES = 192
# Source: include/uapi/linux/major.h and Documentation/filesystems/devpts.rst: most that ``kernel.pty.max`` takes.
_MOST_PTYS = 1 << 20
# What each environment has of its own: see the mount of ``devpts`` in ``sandgate_agent.walls``.
MOST_TERMINALS = 64
_MOST_FILES = (1 << 63) - 1


def memory_of_machine() -> int:
    """In bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def probe_pools(memory_bytes: int, most_environments: int, settings: Path = Path("/proc/sys")) -> tuple[Ability, ...]:
    """Whether environments could use up what others need; ``memory_bytes`` is what the machine has of memory."""
    files, ptys, kept = (_read(settings, name) for name in ("fs/file-max", "kernel/pty/max", "kernel/pty/reserve"))
    return _judge_files(files, memory_bytes), _judge_terminals(ptys - kept, kept, most_environments)


def _judge_files(most: int, memory_bytes: int) -> Ability:
    """Where there may be more open files than memory for them, each environment's own memory is what bounds them."""
    ok = most >= memory_bytes // FILE_BYTES
    found = "as many as there is memory for" if ok else f"at most {most:,} at once, of all processes together"
    mend = "" if ok else f"sysctl -w fs.file-max={_MOST_FILES}, as systemd does"
    return Ability("open_files", ok, found, "environments that cannot use up all open files", _NEITHER, mend)


def _judge_terminals(most: int, kept: int, most_environments: int) -> Ability:
    """The kernel keeps some for the host; the others are for all environments."""
    ok = most >= MOST_TERMINALS * most_environments
    found = f"{most:,} for environments, {MOST_TERMINALS} each; {kept:,} for the host"
    wanted = min(_MOST_PTYS, MOST_TERMINALS * most_environments + kept)
    purpose = "environments that cannot use up the terminals of others"
    return Ability("terminals", ok, found, purpose, _NEITHER, "" if ok else f"sysctl -w kernel.pty.max={wanted}")


def _read(settings: Path, name: str) -> int:
    """Zero where the kernel does not tell."""
    try:
        return int((settings / name).read_text())
    except (OSError, ValueError):
        return 0
