"""What one sandbox may use. Every figure is held from outside the sandbox, by cgroup, rlimit or mount option."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache

MIB = 1024 * 1024
# More than any disk or volume has room for, so that these are what bounds a file.
LARGEST_FILE_BYTES = 16 * 1024**4


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
    file_size_bytes: int = LARGEST_FILE_BYTES
    open_files: int = 1024
    concurrent_executions: int = 16
    output_bytes: int = MIB
    drained_output_bytes: int = 256 * MIB

    @property
    def machine_bytes(self) -> int:
        """What the environment can take of the machine's memory; its files are in memory, too."""
        return self.memory_bytes + self.disk_bytes


@lru_cache(maxsize=64)
def fields_of(limits: Limits) -> Mapping[str, int]:
    """By name; most environments have the limits of one of a few others."""
    return asdict(limits)


@dataclass(frozen=True, slots=True)
class AskedLimits:
    """What somebody asks for instead of a template's limits; None leaves it as it is."""

    memory_bytes: int | None = None
    cpu_millis: int | None = None
    processes: int | None = None
    disk_bytes: int | None = None

    def given(self) -> dict[str, int]:
        """What is asked for, by the names of :class:`Limits`."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The most that may be asked for, and whose ceilings they are: ``server`` or ``user``.

    What a template gives by itself may be had in any case.
    """

    memory_bytes: int
    cpu_millis: int
    processes: int
    disk_bytes: int
    scope: str = "server"
