"""Which process of a container holds the most memory, as far as gVisor's kernel counts it.

That kernel has no killer of its own, and the host's can only kill all of it: so process 1 of the container does what
the host's kernel does in the other classes, when the launcher tells it that too much is used.
"""

import ctypes
import os
import struct
from typing import Callable, Collection, List, Tuple

from sandgate_agent import calls

# More than processes that have done nothing yet differ by.
LEAST_BYTES = 4 << 20
_BLOCK_BYTES = 512
# Descriptors of one process that are looked at: each takes a while, and memory is running out.
_MOST_LOOKED_AT = 200
_MOST_SEGMENTS = 5000
_SEGMENT_BYTES, _SIZE, _ATTACHED = 112, 48, 88
_IPC_STAT = 2


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 256)
    finally:
        os.close(descriptor)


def resident_bytes(pid: int) -> int:
    """What a process has in memory, shared pages among it; 0 when it is gone."""
    try:
        return int(_read("/proc/{}/statm".format(pid)).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def unlinked_bytes(pid: int) -> int:
    """What files without a name hold that a process has open: those in memory, which no disk's size bounds."""
    folder, held = "/proc/{}/fd/".format(pid), {}
    try:
        for name in os.listdir(folder)[:_MOST_LOOKED_AT]:
            if os.readlink(folder + name).endswith(" (deleted)"):
                found = os.stat(folder + name)
                held[found.st_dev, found.st_ino] = found.st_blocks * _BLOCK_BYTES
    except OSError:
        # It is gone.
        return 0
    return sum(held.values())


def rank(agents: Collection[int], usual_bytes: int) -> List[Tuple[int, int]]:
    """Bytes beyond the usual and number of every process but the agents' that holds a lot more, largest first."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    others = [pid for pid in pids if pid not in agents]
    found = [(resident_bytes(pid) - usual_bytes, pid) for pid in others]
    if not any(beyond >= LEAST_BYTES for beyond, _pid in found):
        found = [(max(0, beyond) + unlinked_bytes(pid), pid) for beyond, pid in found]
    return sorted((each for each in found if each[0] >= LEAST_BYTES), reverse=True)


def prepare_forgetting() -> Callable[[], bool]:
    """What takes away shared memory that nobody is attached to, as the kernel does in the standard class.

    It answers whether there was a lot of it. gVisor numbers segments one after the other.
    Source: shmctl(2); struct shmid64_ds in include/uapi/asm-generic/shmbuf.h, for 64 bits.
    """
    told = ctypes.create_string_buffer(_SEGMENT_BYTES)
    count = struct.Struct("@Q")
    make = calls.prepare("shmget", 0, 4096, 0o600)

    def forget() -> bool:
        newest, forgotten = make(), 0
        for number in range(newest, max(-1, newest - _MOST_SEGMENTS), -1):
            if calls.prepare("shmctl", number, _IPC_STAT, told)() < 0:
                continue
            if count.unpack_from(told, _ATTACHED)[0] == 0 and not calls.prepare("shmctl", number, 0, None)():
                forgotten += count.unpack_from(told, _SIZE)[0]
        return forgotten >= LEAST_BYTES

    return forget
