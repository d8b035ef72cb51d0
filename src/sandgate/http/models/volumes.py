"""What clients send and get to read about volumes."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from sandgate.core.limits import MIB
from sandgate.core.volume import DEEPEST_PATH, LONGEST_PATH_BYTES, MountedVolume, VolumeView, VolumeWish
from sandgate.http.models.base import Model
from sandgate.http.models.parts import Cursor, Whole, strict, with_example
from sandgate.http.pagination import PageQuery

_ID = "vol-06evrhy7m0004k2x9c5p8w3n1d"
_NAME = r"^[A-Za-z0-9._-]{1,63}$"
SMALLEST_MB, _LARGEST_MB = 16, 1 << 24
MOST_VOLUMES = 8
MOUNTED = {"name": "data", "path": "/data", "read_only": False, "volume_id": _ID}
_VOLUME = {
    "volume_id": _ID,
    "name": "data",
    "creation_time": "2026-01-01T00:00:00Z",
    "size_mb": 1024,
    "used_bytes": 4096,
    "environment_ids": ["env-06evrhxq8g000wmabyzsqnd3wf"],
    "owner_id": "user-06evrhwp4g000e8v0zrc4v1m6h",
}


class CreateVolume(Model):
    """A new volume."""

    model_config = strict({"name": "data", "size_mb": 1024})

    name: Annotated[str, Field(pattern=_NAME, description="No two of yours have the same.", examples=["data"])]
    size_mb: Annotated[
        int | None,
        Field(ge=SMALLEST_MB, le=_LARGEST_MB, description="All that is in it, and what the file system itself needs."),
        Whole,
    ] = None

    def size_bytes(self) -> int | None:
        """For the use case."""
        return None if self.size_mb is None else self.size_mb * MIB


class ListVolumes(PageQuery):
    """Which volumes are wanted."""

    name: Annotated[str | None, Field(max_length=63)] = None


class DeleteVolume(Model):
    """How it is to be deleted."""

    model_config = ConfigDict(extra="forbid")

    force: Annotated[bool, Field(strict=False, description="End the environments that have it mounted.")] = False


class VolumeAnswer(Model):
    """A folder that outlives environments."""

    model_config = with_example(_VOLUME)

    volume_id: str
    name: str
    creation_time: datetime
    size_mb: int
    used_bytes: Annotated[int | None, Field(description="What files take in it; null: not known now.")]
    environment_ids: Annotated[list[str], Field(description="The live environments that have it mounted.")]
    owner_id: str

    @classmethod
    def of(cls, view: VolumeView) -> "VolumeAnswer":
        """From the use case."""
        row = view.row
        return cls(
            volume_id=row.volume_id,
            name=row.name,
            creation_time=row.created_at,
            size_mb=row.size_bytes // MIB,
            used_bytes=view.used_bytes,
            environment_ids=list(view.environments),
            owner_id=row.owner_id,
        )


class VolumesAnswer(Model):
    """A page of volumes, newest first."""

    model_config = with_example({"volumes": [_VOLUME], "next_cursor": None})

    volumes: list[VolumeAnswer]
    next_cursor: Cursor


class VolumeDeletedAnswer(Model):
    """The volume is gone with all that was in it, and so are the environments that were ended for it."""

    model_config = with_example({"volume_id": _ID, "status": "deleted", "ended_environment_ids": []})

    volume_id: str
    status: Literal["deleted"] = "deleted"
    ended_environment_ids: list[str]


class VolumeWanted(Model):
    """A volume of yours, and where it is to be in the environment."""

    model_config = strict({"name": "data", "path": "/data", "read_only": False})

    name: Annotated[str, Field(pattern=_NAME)]
    path: Annotated[
        str,
        Field(
            min_length=2,
            max_length=LONGEST_PATH_BYTES,
            description="An absolute path, made where it is missing; not in a place of the environment's own, and at "
            f"most {DEEPEST_PATH} folders deep.",
            json_schema_extra={"pattern": "^/[^\\u0000-\\u001f]+$"},
        ),
    ]
    read_only: bool = False

    def wish(self) -> VolumeWish:
        """For the use case."""
        return VolumeWish(self.name, self.path, self.read_only)


class MountedAnswer(Model):
    """Where an environment has a volume."""

    name: str
    path: str
    read_only: bool
    volume_id: str

    @classmethod
    def of(cls, volume: MountedVolume) -> "MountedAnswer":
        """From the record."""
        return cls(name=volume.name, path=volume.path, read_only=volume.read_only, volume_id=volume.volume_id)
