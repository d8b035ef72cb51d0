"""Processes in the background of environments."""

from sandgate.config.groups.row import Group, setting


class ProcessSettings(Group):
    """Processes in the background of environments."""

    max_processes_per_environment: int = setting(
        8, "Background processes of one environment, each with all that it starts.", ge=0, le=64
    )
    max_processes_per_user: int = setting(64, "Background processes of one user, on this server.", ge=0)
    process_output_bytes: int = setting(
        256 * 1024,
        "How much of the newest output of a background process is kept.",
        unit="bytes",
        ge=4096,
        le=16 * 1024**2,
    )
    process_output_bytes_per_s: int = setting(
        4 * 1024**2,
        "How fast the output of a background process is taken while nobody reads it; what it writes faster makes it "
        "wait.",
        unit="bytes a second",
        ge=4096,
    )
    process_retention_s: float = setting(
        600.0, "How long the end of a background process can be asked for.", unit="s", ge=0, le=86_400
    )
    process_input_timeout_s: float = setting(
        30.0, "How long a request may wait for a process to take its input.", unit="s", ge=0.1, le=600
    )
