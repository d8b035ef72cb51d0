"""What clients get to read about the use of an environment."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from sandgate.environments.base import Metrics
from sandgate.http.models.base import Model
from sandgate.http.models.parts import with_example

_EXAMPLE = {
    "environment_id": "env-06evrhxq8g000wmabyzsqnd3wf",
    "at": "2026-01-01T00:00:00Z",
    "executions_running": 1,
    "cpu": {"used_ms": 412, "limit": 1.0},
    "memory": {"current_bytes": 9437184, "peak_bytes": 31457280, "limit_bytes": 805306368},
    "processes": {"current": 2, "peak": 5, "limit": 64},
    "disk": {"current_bytes": 4096, "peak_bytes": 4096, "limit_bytes": 268435456, "files": 34, "files_limit": 65536},
    "out_of_memory_kills": 0,
}


class CpuMetrics(Model):
    """Processor time since the environment was made, and the most cores at once."""

    used_ms: int | None
    limit: float


class MemoryMetrics(Model):
    """Memory of processes, files and kernel together; the limit is the environment's memory and disk together, or its
    memory where the server keeps files on its disk.
    """

    current_bytes: int | None
    peak_bytes: int | None
    limit_bytes: int


class ProcessMetrics(Model):
    """Processes and threads; one waits ready for the next execution."""

    current: int | None
    peak: Annotated[
        int | None, Field(description="Before Linux 6.11: the most that was found whenever somebody looked.")
    ]
    limit: int


class DiskMetrics(Model):
    """Files that the environment has written."""

    current_bytes: int | None
    peak_bytes: Annotated[int | None, Field(description="The most that was found whenever somebody looked.")]
    limit_bytes: int
    files: int | None
    files_limit: int


class MetricsAnswer(Model):
    """What an environment uses, as the kernel counts it; null is what nothing counts (isolation class `process`)."""

    model_config = with_example(_EXAMPLE)

    environment_id: str
    at: datetime
    executions_running: int
    cpu: CpuMetrics
    memory: MemoryMetrics
    processes: ProcessMetrics
    disk: DiskMetrics
    out_of_memory_kills: int | None

    @classmethod
    def of(cls, metrics: Metrics) -> "MetricsAnswer":
        """From what was counted, and the environment's limits."""
        used, limits = metrics.usage, metrics.row.limits
        return cls(
            environment_id=metrics.row.environment_id,
            at=metrics.at,
            executions_running=metrics.executions_running,
            cpu=CpuMetrics(
                used_ms=None if used.cpu_us is None else used.cpu_us // 1000, limit=limits.cpu_millis / 1000
            ),
            memory=MemoryMetrics(
                current_bytes=used.memory_bytes,
                peak_bytes=used.peak_memory_bytes,
                limit_bytes=metrics.memory_limit_bytes,
            ),
            processes=ProcessMetrics(current=used.processes, peak=used.peak_processes, limit=limits.processes),
            disk=DiskMetrics(
                current_bytes=used.disk_bytes,
                peak_bytes=used.peak_disk_bytes,
                limit_bytes=limits.disk_bytes,
                files=used.inodes,
                files_limit=limits.inodes,
            ),
            out_of_memory_kills=used.out_of_memory_kills,
        )
