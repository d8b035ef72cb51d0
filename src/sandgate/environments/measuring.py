"""What live environments use."""

from sandgate.core.clock import Clock
from sandgate.core.errors import LauncherUnavailable, SandboxFailed
from sandgate.core.states import Isolation
from sandgate.environments.base import Metrics
from sandgate.environments.live import LiveEnvironment


async def measure(live: LiveEnvironment, clock: Clock, environment_disk: str) -> Metrics:
    """What an environment uses now; waits while it is being made. ``environment_disk`` is as the settings have it.

    Raises ``EnvironmentNotRunning``, ``LauncherUnavailable``. A look never ends an environment.
    """
    sandbox = await live.wait_for_made()
    try:
        usage = await sandbox.usage()
    except SandboxFailed as fault:
        if sandbox.failure is not None or live.ending is not None:
            raise live.refusal() from fault
        raise LauncherUnavailable(
            f"What environment {live.environment_id} uses cannot be told now: {fault.details.get('reason', fault)}"
        ) from fault
    limits, on_disk = live.row.limits, environment_disk == "image" and live.row.isolation is Isolation.STANDARD
    memory_bytes = limits.memory_bytes if on_disk else limits.machine_bytes
    return Metrics(live.row, clock.now(), usage, len(live.running), memory_bytes)
