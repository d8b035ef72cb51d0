"""Rows of volumes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import EnvironmentId, UserId, VolumeId
from sandgate.core.page import Page, PageRequest
from sandgate.core.volume import Volume


class VolumeRefusal(Enum):
    """Why a row was not written."""

    NAME_TAKEN = auto()
    TOO_MANY = auto()
    TOO_LARGE = auto()
    NO_USER = auto()


@dataclass(frozen=True, slots=True)
class VolumesHeld:
    """How many volumes a user has, those that are being deleted among them, and their sizes together."""

    count: int
    size_bytes: int


class VolumeStore(Protocol):
    """Rows of volumes. One that is being deleted is found by its id only, and counts until it is gone."""

    async def insert(
        self, volume: Volume, most: int, most_bytes: int, answer: KeptAnswer | None = None
    ) -> VolumeRefusal | None:
        """Add a row, and what is answered about it; or nothing, and why not.

        It may be one of ``most``, and with all others of its owner's have ``most_bytes``.
        """
        ...

    async def find(self, volume_id: VolumeId) -> Volume | None:
        """The row."""
        ...

    async def find_named(self, owner_id: UserId, names: Sequence[str]) -> Mapping[str, Volume]:
        """Those of an owner that there are, by name."""
        ...

    async def list(self, owner_id: UserId | None, name: str | None, page: PageRequest) -> Page[Volume]:
        """A page, newest first; None means any."""
        ...

    async def held(self, owner_id: UserId) -> VolumesHeld:
        """What an owner has."""
        ...

    async def find_users(self, volume_ids: Sequence[VolumeId]) -> Mapping[VolumeId, Sequence[EnvironmentId]]:
        """The live environments that have each, oldest first; those that nobody has are left out."""
        ...

    async def begin_delete(self, volume_id: VolumeId) -> Sequence[EnvironmentId] | None:
        """From now on no environment gets it. Answers the live ones that have it, and then nothing is written.

        None when there is no such row, or when it is being deleted already.
        """
        ...

    async def delete(self, volume_id: VolumeId) -> bool:
        """Remove the row of one that is being deleted; False when there is none."""
        ...

    async def list_condemned(self, server_id: str | None) -> Sequence[Volume]:
        """Those that are being deleted, or whose owner was, on a server or on any; some may have live environments."""
        ...
