"""Environments that the tests of standing still make."""

from sandgate.core.environment import Environment
from sandgate.core.ids import EnvironmentId
from sandgate.core.states import EnvironmentStatus, OnTimeout
from sandgate.environments.base import NewEnvironment
from tests.unit.environments.conftest import World


async def make(world: World, timeout_s: int = 60, on_timeout: str = "delete", idle_s: int | None = None) -> Environment:
    """One that runs."""
    wanted = NewEnvironment("e", "python-3.9", timeout_s, on_timeout=OnTimeout(on_timeout), idle_timeout_s=idle_s)
    row = await world.service.create(world.user, wanted)
    await world.until_status(row.environment_id, EnvironmentStatus.RUNNING)
    return row


def stands_still(world: World, environment_id: EnvironmentId) -> bool:
    """Whether its sandbox does."""
    return world.runtime.sandboxes[environment_id].standstill.is_on
