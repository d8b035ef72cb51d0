"""The use cases of volumes, as the HTTP layer sees them."""

from collections.abc import Sequence
from typing import Protocol

from sandgate.core.idempotency import Keep
from sandgate.core.ids import VolumeId
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal
from sandgate.core.volume import VolumeView


class Volumes(Protocol):
    """Every method raises ``VolumeNotFound`` for an unknown, deleted or foreign id (an admin sees all), ``Forbidden``
    when a viewer would change something, and ``StoreUnavailable``.
    """

    async def create(
        self, caller: Principal, name: str, size_bytes: int | None, keep: Keep[VolumeView] | None = None
    ) -> VolumeView:
        """An empty volume of the caller's; without a size of the size that the settings say.

        Raises ``VolumesUnavailable``, ``LimitTooHigh``, ``VolumeNameTaken``, ``VolumeQuotaExceeded``,
        ``LauncherUnavailable``, ``SandboxFailed``.
        """
        ...

    async def get(self, caller: Principal, volume_id: VolumeId) -> VolumeView:
        """One volume."""
        ...

    async def list(self, caller: Principal, page: PageRequest, name: str | None = None) -> Page[VolumeView]:
        """A page, newest first."""
        ...

    async def delete(self, caller: Principal, volume_id: VolumeId, *, force: bool = False) -> Sequence[str]:
        """Delete it with all that is in it; answers the environments that were ended for it, with ``force``.

        Raises ``VolumeInUse``, ``VolumeElsewhere``, ``EnvironmentElsewhere``, ``LauncherUnavailable``,
        ``SandboxFailed``.
        """
        ...
