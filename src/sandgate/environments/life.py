"""The use cases of the life of environments, as the HTTP layer sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sandgate.core.environment import Environment
from sandgate.core.ids import EnvironmentId
from sandgate.core.principal import Principal


@dataclass(frozen=True, slots=True)
class NewCopies:
    """What a caller asks for of copies of an environment; what is None is as the environment has it."""

    count: int = 1
    name: str | None = None
    metadata: dict[str, str] | None = None
    timeout_s: int | None = None


class Life(Protocol):
    """The part of ``Environments`` that is about standing still, and about copies."""

    async def pause(self, caller: Principal, environment_id: EnvironmentId) -> Environment:
        """Let it stand still until somebody uses it, with what runs in it; durable. One that does stays so.

        Raises ``PauseUnavailable``, ``EnvironmentNotRunning``, ``LauncherUnavailable``.
        """
        ...

    async def resume(self, caller: Principal, environment_id: EnvironmentId) -> Environment:
        """Let it go on, as any use does; one that runs does so. Raises ``EnvironmentNotRunning``,
        ``LauncherUnavailable``.
        """
        ...

    async def fork(self, caller: Principal, environment_id: EnvironmentId, wanted: NewCopies) -> Sequence[Environment]:
        """Make others with its files as they are at one moment, and with all else that was asked for with it.

        They belong to its owner. All of them, or none. Raises ``EnvironmentNotRunning``, ``SnapshotUnavailable``,
        ``TooManyEnvironments``, ``MemoryQuotaExceeded``, ``InvalidRequest`` for too many, ``SnapshotTooLarge``,
        ``FilesUnavailable``, ``TooManyExecutions``, ``TemplateUnavailable``, ``VolumeNotFound``,
        ``LauncherUnavailable``, ``ServiceDraining``.
        """
        ...
