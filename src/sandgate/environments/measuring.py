"""What live environments use."""

from sandgate.core.clock import Clock
from sandgate.core.errors import LauncherUnavailable, SandboxFailed
from sandgate.environments.base import Metrics
from sandgate.environments.live import LiveEnvironment


async def measure(live: LiveEnvironment, clock: Clock) -> Metrics:
    """What an environment uses now; waits while it is being made.

    Raises ``EnvironmentNotRunning``, ``LauncherUnavailable``. A look never ends an environment.
    """
    sandbox = await live.wait_for_sandbox()
    try:
        usage = await sandbox.usage()
    except SandboxFailed as fault:
        if sandbox.failure is not None or live.ending is not None:
            raise live.refusal() from fault
        raise LauncherUnavailable(
            f"What environment {live.environment_id} uses cannot be told now: {fault.details.get('reason', fault)}"
        ) from fault
    return Metrics(live.row, clock.now(), usage, len(live.running))
