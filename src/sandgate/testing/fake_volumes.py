"""Volumes that hold nothing."""

from collections.abc import Callable, Mapping, Sequence

from sandgate.core.ids import EnvironmentId, VolumeId
from sandgate.core.states import Isolation
from sandgate.core.volume import MountedVolume


class FakeVolumes:
    """``VolumeKeeper`` for tests: ``sizes`` of those that there are, ``used`` and ``lack`` as a test says."""

    def __init__(self, check: Callable[[], None]) -> None:
        """``check`` raises while the launcher is away."""
        self._check = check
        self.sizes: dict[VolumeId, int] = {}
        self.used: dict[VolumeId, int] = {}
        self.mounted: dict[EnvironmentId, tuple[MountedVolume, ...]] = {}
        self.lack: str | None = None

    def find_lack(self, isolation: Isolation) -> str | None:
        """See ``VolumeKeeper``."""
        return "it has no mounts" if isolation is not Isolation.STANDARD else self.lack

    async def make(self, volume_id: VolumeId, size_bytes: int) -> None:
        """See ``VolumeKeeper``."""
        self._check()
        self.sizes.setdefault(volume_id, size_bytes)

    async def mount(self, environment_id: EnvironmentId, volumes: Sequence[MountedVolume]) -> None:
        """See ``VolumeKeeper``."""
        self._check()
        for volume in volumes:
            self.sizes.setdefault(volume.volume_id, volume.size_bytes)
        self.mounted[environment_id] = tuple(volumes)

    async def measure(self, volume_ids: Sequence[VolumeId]) -> Mapping[VolumeId, int]:
        """See ``VolumeKeeper``."""
        self._check()
        return {volume_id: self.used.get(volume_id, 0) for volume_id in volume_ids}

    async def remove(self, volume_id: VolumeId) -> None:
        """See ``VolumeKeeper``."""
        self._check()
        self.sizes.pop(volume_id, None)
