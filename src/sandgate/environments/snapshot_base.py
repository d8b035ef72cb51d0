"""The use cases of snapshots, as the HTTP layer sees them."""

from typing import Protocol

from sandgate.core.ids import EnvironmentId, SnapshotId
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal
from sandgate.core.snapshot import Snapshot
from sandgate.environments.snapshots import NewSnapshot


class Snapshots(Protocol):
    """Snapshots of environments. Every method but ``create`` raises ``SnapshotNotFound`` for an unknown, deleted or
    foreign id (an admin sees all), and each ``Forbidden`` when a viewer would change something, ``StoreUnavailable``.
    """

    async def create(self, caller: Principal, environment_id: EnvironmentId, wanted: NewSnapshot) -> Snapshot:
        """Keep all that code has changed in an environment, as it is at one moment. It belongs to its owner.

        Raises ``EnvironmentNotFound``, ``EnvironmentNotRunning``, ``EnvironmentElsewhere``, ``SnapshotUnavailable``,
        ``SnapshotTooLarge``, ``TooManySnapshots``, ``FilesUnavailable``, ``TooManyExecutions``,
        ``LauncherUnavailable``, ``ServiceDraining``.
        """
        ...

    async def list(
        self, caller: Principal, page: PageRequest, *, name: str | None = None, template: str | None = None
    ) -> Page[Snapshot]:
        """A page, newest first."""
        ...

    async def get(self, caller: Principal, snapshot_id: SnapshotId) -> Snapshot:
        """One of them."""
        ...

    async def delete(self, caller: Principal, snapshot_id: SnapshotId) -> Snapshot:
        """Remove it. Environments that began with it keep their files."""
        ...
