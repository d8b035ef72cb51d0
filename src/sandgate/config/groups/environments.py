"""Environments and executions: how many, how long, how large."""

from pydantic import field_validator

from sandgate.config.groups.row import Group, setting
from sandgate.core.limits import LARGEST_FILE_BYTES, Limits

# Less is meant in another unit.
_LEAST_FILE_BYTES = 1024


class EnvironmentSettings(Group):
    """Environments and executions: how many, how long, how large."""

    max_environments: int = setting(2000, "Live environments on this server.", ge=1, le=20_000)
    max_environments_per_user: int = setting(1000, "Live environments of one user.", ge=1)
    max_memory_bytes_per_user: int = setting(
        0,
        "Memory of all live environments of one user together, their files included. 0: no bound.",
        unit="bytes",
        ge=0,
    )
    max_executions_per_day_per_user: int = setting(
        0, "Executions of one user a day, which begins at midnight (UTC). 0: no bound.", ge=0
    )
    max_executions_at_once: int = setting(
        2000,
        "Executions of all users that run or wait at once, on this server. Each takes five open files of the gateway, "
        "and each environment six.",
        ge=1,
        le=100_000,
    )
    max_executions_at_once_per_user: int = setting(
        512, "Executions of one user that run or wait at once, on this server.", ge=1, le=100_000
    )
    max_execution_bytes_at_once_per_user: int = setting(
        256 * 1024**2, "Code of those executions, and what comes with it, together, on this server.", unit="bytes", ge=1
    )
    max_environment_env_bytes: int = setting(
        16 * 1024, "Variables of an environment, names and values together.", unit="bytes", ge=0, le=1024**2
    )
    default_environment_timeout_s: int = setting(
        3600, "Lifetime of an environment that asks for none.", unit="s", ge=1, le=86_400
    )
    default_idle_timeout_s: int = setting(
        0,
        "Environments that ask for nothing else are paused when nobody has used them for so long. 0: never.",
        unit="s",
        ge=0,
        le=86_400,
    )
    max_paused_s: int = setting(86_400, "How long an environment may be paused.", unit="s", ge=1, le=30 * 86_400)
    default_execution_timeout_s: float = setting(
        30.0, "Time limit of an execution that asks for none.", unit="s", ge=0.1, le=3600
    )
    memory_bytes: int = setting(512 * 1024**2, "Memory of an environment.", unit="bytes", ge=32 * 1024**2)
    cpu_millis: int = setting(1000, "CPU of an environment.", unit="thousandths of a core", ge=50)
    processes: int = setting(64, "Processes and threads of an environment.", ge=8, le=32_768)
    disk_bytes: int = setting(256 * 1024**2, "Files of an environment.", unit="bytes", ge=1024**2)
    max_environment_memory_bytes: int = setting(
        2 * 1024**3, "The most memory that may be asked for with an environment.", unit="bytes", ge=32 * 1024**2
    )
    max_environment_cpu_millis: int = setting(
        2000, "The most CPU that may be asked for with an environment.", unit="thousandths of a core", ge=50
    )
    max_environment_processes: int = setting(
        512, "The most processes and threads that may be asked for with an environment.", ge=8, le=32_768
    )
    max_environment_disk_bytes: int = setting(
        2 * 1024**3, "The most files that may be asked for with an environment.", unit="bytes", ge=1024**2
    )
    inodes: int = setting(65_536, "Number of files of an environment.", ge=256)
    file_size_bytes: int = setting(
        0,
        "Largest single file, 1024 at least. 0: as large as the disk, or the volume, that it is on.",
        unit="bytes",
        ge=0,
    )
    open_files: int = setting(1024, "Open files of a process.", ge=64, le=65_536)
    concurrent_executions: int = setting(16, "Executions side by side in one environment.", ge=1, le=64)
    output_bytes: int = setting(
        1024**2, "Kept part of stdout, and of stderr, of an execution.", unit="bytes", ge=1024, le=64 * 1024**2
    )
    drained_output_bytes: int = setting(
        256 * 1024**2,
        "Output beyond the kept part that is read and dropped before the execution is ended with `output_limit`.",
        unit="bytes",
        ge=1024**2,
    )

    @field_validator("file_size_bytes")
    @classmethod
    def _check_file_size(cls, size: int) -> int:
        if 0 < size < _LEAST_FILE_BYTES:
            raise ValueError(f"has to be 0, or {_LEAST_FILE_BYTES} at least")
        return size

    def limits(self) -> Limits:
        """The default ceilings of an environment."""
        return Limits(
            memory_bytes=self.memory_bytes,
            cpu_millis=self.cpu_millis,
            processes=self.processes,
            disk_bytes=self.disk_bytes,
            inodes=self.inodes,
            file_size_bytes=self.file_size_bytes or LARGEST_FILE_BYTES,
            open_files=self.open_files,
            concurrent_executions=self.concurrent_executions,
            output_bytes=self.output_bytes,
            drained_output_bytes=self.drained_output_bytes,
        )
