"""What environments use, as a client is told."""

from datetime import datetime

from sandgate.sdk.answers import AnswerModel


class CpuUse(AnswerModel):
    """Processor time so far, and the most cores at once."""

    used_ms: int | None
    limit: float


class MemoryUse(AnswerModel):
    """Memory, that of files included."""

    current_bytes: int | None
    peak_bytes: int | None
    limit_bytes: int


class ProcessUse(AnswerModel):
    """Processes and threads."""

    current: int | None
    peak: int | None
    limit: int


class DiskUse(AnswerModel):
    """Files."""

    current_bytes: int | None
    peak_bytes: int | None
    limit_bytes: int
    files: int | None
    files_limit: int


class Metrics(AnswerModel):
    """What an environment uses; None is what nothing counts."""

    environment_id: str
    at: datetime
    executions_running: int
    cpu: CpuUse
    memory: MemoryUse
    processes: ProcessUse
    disk: DiskUse
    out_of_memory_kills: int | None
