"""What one sandbox may use. Every figure is held from outside the sandbox, by cgroup, rlimit or mount option."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings of one environment.

    ``memory_bytes`` covers processes; files live in memory too and are counted against
    ``memory_bytes + disk_bytes`` together, because the kernel charges a file's pages to its writer.
    ``cpu_millis`` is in thousandths of a core.
    """

    memory_bytes: int = 512 * MIB
    cpu_millis: int = 1000
    processes: int = 64
    disk_bytes: int = 256 * MIB
    inodes: int = 65_536
    file_size_bytes: int = 256 * MIB
    open_files: int = 1024
    concurrent_executions: int = 16
    output_bytes: int = MIB
    drained_output_bytes: int = 256 * MIB
