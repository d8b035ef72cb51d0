"""Volumes, as the launcher keeps them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sandgate.core.ids import EnvironmentId, VolumeId
from sandgate.core.states import Isolation
from sandgate.core.volume import MountedVolume
from sandgate.sandbox.launcher.client import LauncherClient
from sandgate.sandbox.launcher.volume_verbs import MOST_MEASURED

# Longer than the launcher gives itself.
_LIMIT_S = 45.0


def _mounts_of(volumes: Sequence[MountedVolume]) -> Sequence[Mapping[str, Any]]:
    """As the launcher is asked for them."""
    return [
        {"volume": each.volume_id, "size_bytes": each.size_bytes, "path": each.path, "read_only": each.read_only}
        for each in volumes
    ]


class LauncherVolumes:
    """See :class:`sandgate.sandbox.base.VolumeKeeper`. ``client()`` is the connection of the moment."""

    def __init__(self, client: Callable[[], LauncherClient]) -> None:
        self._client = client
        #: What the launcher said of itself; empty: nothing is lacking.
        self.lack = "the launcher has not been asked yet"

    def find_lack(self, isolation: Isolation) -> str | None:
        """See ``VolumeKeeper``."""
        if isolation is Isolation.PROCESS:
            return "environments of the process class have no mounts of their own"
        return self.lack or None

    async def make(self, volume_id: VolumeId, size_bytes: int) -> None:
        """See ``VolumeKeeper``."""
        await self._client().request("make_volume", limit_s=_LIMIT_S, volume=volume_id, size_bytes=size_bytes)

    async def mount(self, environment_id: EnvironmentId, volumes: Sequence[MountedVolume]) -> None:
        """See ``VolumeKeeper``."""
        await self._client().request(
            "mount_volumes", limit_s=_LIMIT_S, environment_id=environment_id, volumes=_mounts_of(volumes)
        )

    async def measure(self, volume_ids: Sequence[VolumeId]) -> Mapping[VolumeId, int]:
        """See ``VolumeKeeper``."""
        used: dict[VolumeId, int] = {}
        for start in range(0, len(volume_ids), MOST_MEASURED):
            asked = list(volume_ids[start : start + MOST_MEASURED])
            answer = await self._client().request("measure_volumes", limit_s=_LIMIT_S, volumes=asked)
            used |= {VolumeId(name): int(size) for name, size in answer.values["used_bytes"].items()}
        return used

    async def remove(self, volume_id: VolumeId) -> None:
        """See ``VolumeKeeper``."""
        await self._client().request("remove_volume", limit_s=_LIMIT_S, volume=volume_id)
