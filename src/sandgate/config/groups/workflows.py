"""Runs of workflows and what steps may do."""

from sandgate.config.groups.row import Group, setting


class WorkflowSettings(Group):
    """Runs of workflows and what steps may do."""

    max_workflows_per_user: int = setting(1000, "Workflows of one user; further ones are answered 429.", ge=1)
    max_runs: int = setting(1000, "Runs of workflows that are not over, on this server.", ge=1, le=100_000)
    max_run_depth: int = setting(
        8, "How many runs may be above a run that a step of type `workflow` starts.", ge=1, le=64
    )
    max_steps: int = setting(32, "Steps of workflows that run code at once, on this server.", ge=1, le=1000)
    max_steps_per_user: int = setting(
        16,
        "Steps of workflows of one user that run code at once, on this server; more of them wait, and leave the rest "
        "of `max_steps` to others.",
        ge=1,
        le=1000,
    )
    max_http_steps: int = setting(64, "Steps of type `http` at once, on this server.", ge=1, le=1000)
    max_http_steps_per_user: int = setting(
        16, "Steps of type `http` of one user at once, on this server; more of them wait.", ge=1, le=1000
    )
    http_step_bytes: int = setting(
        256 * 1024, "Largest answer to a step of type `http`.", unit="bytes", ge=1024, le=256 * 1024
    )
    workspace_idle_s: float = setting(
        86_400.0,
        "How long the workspace that the steps of a run share is kept while none of them runs in it.",
        unit="s",
        ge=1,
        le=31 * 86_400,
    )
    http_step_allow: str = setting(
        "",
        "Networks (`10.1.0.0/16`) and names of hosts, separated by commas, that steps of type `http` may reach though "
        "their addresses are private or otherwise special.",
    )
    run_lease_s: float = setting(
        10.0,
        "How long a run stays with a server that gives no sign of life before another server on the same database "
        "takes it over.",
        unit="s",
        ge=2,
        le=300,
    )
    max_kept_run_bytes_per_user: int = setting(
        2 * 1024**3,
        "What is kept of one user's ended runs together: inputs, outputs, what steps printed, history, and earlier "
        "versions of workflows that only these runs need; beyond it the oldest ended runs are removed, in about a "
        "minute.",
        unit="bytes",
        ge=1024**2,
    )
    run_retention_s: int = setting(
        30 * 86_400,
        "Ended runs are kept for this long, with their steps and history; deleted workflows and ended environments as "
        "well.",
        unit="s",
        ge=60,
    )
