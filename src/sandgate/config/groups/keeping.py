"""What users keep on the server: schedules, webhooks, secrets, artifacts."""

from sandgate.config.groups.row import Group, setting


class KeepingSettings(Group):
    """What users keep on the server: schedules, webhooks, secrets, artifacts."""

    max_triggers_per_user: int = setting(100, "Schedules of one user, and webhooks of one user.", ge=1, le=100_000)
    webhook_max_body_bytes: int = setting(
        256 * 1024, "Largest body that a webhook takes.", unit="bytes", ge=1024, le=1024**2
    )
    webhook_rate_per_minute: int = setting(
        120,
        "Requests that one webhook takes in a minute, on this server; further ones are answered 429.",
        ge=1,
        le=100_000,
    )

    max_secrets_per_user: int = setting(100, "Secrets of one user.", ge=1, le=10_000)
    max_artifact_bytes: int = setting(64 * 1024**2, "Largest artifact.", unit="bytes", ge=1)
    max_step_artifacts: int = setting(1000, "Artifacts of one attempt of a step.", ge=1, le=10_000)
    max_step_artifact_bytes: int = setting(
        128 * 1024**2, "All artifacts of one attempt of a step together.", unit="bytes", ge=1
    )
    max_run_artifacts: int = setting(10_000, "Artifacts of one run.", ge=1, le=1_000_000)
    max_run_artifact_bytes: int = setting(1024**3, "All artifacts of one run together.", unit="bytes", ge=1)
    max_kept_artifact_bytes_per_user: int = setting(
        10 * 1024**3,
        "All artifacts of one user's runs together; beyond it the oldest artifacts of ended runs are removed, in about "
        "five minutes.",
        unit="bytes",
        ge=1024**2,
    )
    artifact_retention_s: int = setting(
        7 * 86_400, "Artifacts are kept for this long, unless their run goes before.", unit="s", ge=60
    )
