"""Making, reading and deleting volumes."""

from typing import Annotated

from starlette.requests import Request

from sandgate.core import errors
from sandgate.environments.volume_cases import Volumes
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.idempotency import keeper
from sandgate.http.marks import Query
from sandgate.http.models.volumes import (
    CreateVolume,
    DeleteVolume,
    ListVolumes,
    VolumeAnswer,
    VolumeDeletedAnswer,
    VolumesAnswer,
)
from sandgate.http.pagination import next_cursor
from sandgate.http.paths import VolumePath

_VOLUMES = "/api/v1/sandbox/volumes"
_VOLUME = f"{_VOLUMES}/{{volume_id}}"
_TAG = "volumes"


def add_volume_routes(api: Api, volumes: Volumes) -> None:
    """Declare the operations."""

    @api.operation(
        "POST",
        _VOLUMES,
        tag=_TAG,
        status=201,
        idempotent=True,
        errors=(
            errors.Forbidden,
            errors.VolumesUnavailable,
            errors.LimitTooHigh,
            errors.VolumeNameTaken,
            errors.VolumeQuotaExceeded,
            errors.UserNotFound,
            errors.LauncherUnavailable,
            errors.SandboxFailed,
        ),
    )
    async def create_volume(caller: Caller, body: CreateVolume, request: Request) -> VolumeAnswer:
        """Make an empty volume: a folder that environments can have, and that outlives them."""
        keep = keeper(request, VolumeAnswer.of)
        return VolumeAnswer.of(await volumes.create(caller, body.name, body.size_bytes(), keep))

    @api.operation("GET", _VOLUMES, tag=_TAG)
    async def list_volumes(caller: Caller, query: Annotated[ListVolumes, Query()]) -> VolumesAnswer:
        """List your volumes, newest first; an admin's list holds everybody's."""
        page = await volumes.list(caller, query.page_request("vol"), query.name)
        return VolumesAnswer(volumes=[VolumeAnswer.of(view) for view in page.items], next_cursor=next_cursor(page))

    @api.operation("GET", _VOLUME, tag=_TAG, errors=(errors.VolumeNotFound,))
    async def get_volume(caller: Caller, volume_id: VolumePath) -> VolumeAnswer:
        """Get one volume, with what is used of it, and by whom."""
        return VolumeAnswer.of(await volumes.get(caller, volume_id))

    @api.operation(
        "DELETE",
        _VOLUME,
        tag=_TAG,
        errors=(
            errors.VolumeNotFound,
            errors.Forbidden,
            errors.VolumeInUse,
            errors.VolumeElsewhere,
            errors.EnvironmentElsewhere,
            errors.LauncherUnavailable,
            errors.SandboxFailed,
        ),
    )
    async def delete_volume(
        caller: Caller, volume_id: VolumePath, query: Annotated[DeleteVolume, Query()]
    ) -> VolumeDeletedAnswer:
        """Delete a volume with all that is in it. While environments have it, only with `force`, which ends them."""
        ended = await volumes.delete(caller, volume_id, force=query.force)
        return VolumeDeletedAnswer(volume_id=volume_id, ended_environment_ids=list(ended))
