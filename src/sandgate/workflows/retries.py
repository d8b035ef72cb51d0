"""When a step is tried again, and after how long."""

from sandgate.core.run import StepRun
from sandgate.core.workflow import RetryPolicy

# Code that takes its machine down with it would otherwise be started for ever.
MOST_LOSSES = 10


def may_try_again(policy: RetryPolicy, row: StepRun, reason: str) -> bool:
    """Whether an attempt that ended in this way is followed by another.

    Attempts that were lost with the machine are not the code's doing and do not count.
    """
    if reason in ("succeeded", "cancelled"):
        return False
    if reason == "lost":
        return "lost" in policy.on and row.losses < MOST_LOSSES
    return reason in policy.on and _counted(row) < policy.max_attempts


def delay_before_next(policy: RetryPolicy, row: StepRun, reason: str) -> float:
    """Seconds from the end of the row's attempt to the next one."""
    if reason == "lost":
        return 0.0
    before = max(0, _counted(row) - 1)
    try:
        delay = policy.delay_s * policy.backoff**before
    except OverflowError:
        return policy.max_delay_s
    return min(policy.max_delay_s, delay)


def _counted(row: StepRun) -> int:
    """Attempts that ended by the code's doing, since the run was started or last retried."""
    return row.attempt - row.attempts_before - row.losses
