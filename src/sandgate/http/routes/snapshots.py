"""Snapshots and copies of environments."""

from typing import Annotated

from sandgate.core import errors
from sandgate.environments.base import Environments
from sandgate.environments.life import NewCopies
from sandgate.environments.snapshot_base import Snapshots
from sandgate.environments.snapshots import NewSnapshot
from sandgate.http.api import Api
from sandgate.http.audit import Audit
from sandgate.http.authentication import Caller
from sandgate.http.marks import Query
from sandgate.http.models.environments import EnvironmentAnswer, ForkAnswer
from sandgate.http.models.snapshots import (
    CreateSnapshot,
    ForkEnvironment,
    ListSnapshots,
    SnapshotAnswer,
    SnapshotDeletedAnswer,
    SnapshotsAnswer,
)
from sandgate.http.pagination import next_cursor
from sandgate.http.paths import EnvironmentPath, SnapshotPath

_ENVIRONMENT = "/api/v1/sandbox/environments/{environment_id}"
_SNAPSHOTS = "/api/v1/sandbox/snapshots"
_SNAPSHOT = f"{_SNAPSHOTS}/{{snapshot_id}}"
_TAG = "snapshots"
_READS_FILES = (
    errors.EnvironmentNotFound,
    errors.Forbidden,
    errors.EnvironmentNotRunning,
    errors.EnvironmentElsewhere,
    errors.SnapshotUnavailable,
    errors.SnapshotTooLarge,
    errors.TooManyExecutions,
    errors.FilesUnavailable,
    errors.LauncherUnavailable,
    errors.ServiceDraining,
)


def add_snapshot_routes(api: Api, snapshots: Snapshots, environments: Environments) -> None:
    """Declare the operations."""
    _add_making_routes(api, snapshots, environments)
    _add_kept_routes(api, snapshots)


def _add_making_routes(api: Api, snapshots: Snapshots, environments: Environments) -> None:
    @api.operation(
        "POST",
        f"{_ENVIRONMENT}/snapshots",
        tag=_TAG,
        status=201,
        audit=Audit.CHANGE,
        idempotent=True,
        errors=(*_READS_FILES, errors.TooManySnapshots),
    )
    async def create_snapshot(
        caller: Caller, environment_id: EnvironmentPath, body: CreateSnapshot | None = None
    ) -> SnapshotAnswer:
        """Keep an environment's files, to start others from.

        Nothing runs in the environment while they are read, so that they are as they were at one moment. What runs
        goes on afterwards; memory and processes are no part of a snapshot.
        """
        wanted = NewSnapshot() if body is None else body.wanted()
        return SnapshotAnswer.of(await snapshots.create(caller, environment_id, wanted))

    @api.operation(
        "POST",
        f"{_ENVIRONMENT}/fork",
        tag=_TAG,
        status=201,
        audit=Audit.CHANGE,
        idempotent=True,
        errors=(
            *_READS_FILES,
            errors.TooManyEnvironments,
            errors.MemoryQuotaExceeded,
            errors.UnknownTemplate,
            errors.TemplateUnavailable,
            errors.VolumeNotFound,
        ),
    )
    async def fork_environment(
        caller: Caller, environment_id: EnvironmentPath, body: ForkEnvironment | None = None
    ) -> ForkAnswer:
        """Make copies of an environment: the same files at one moment, limits, network, variables and names of secrets.

        Each has a life of its own. Nothing that runs is copied.
        """
        wanted = NewCopies() if body is None else body.wanted()
        copies = await environments.fork(caller, environment_id, wanted)
        return ForkAnswer(environments=[EnvironmentAnswer.of(row) for row in copies])


def _add_kept_routes(api: Api, snapshots: Snapshots) -> None:
    @api.operation("GET", _SNAPSHOTS, tag=_TAG)
    async def list_snapshots(caller: Caller, query: Annotated[ListSnapshots, Query()]) -> SnapshotsAnswer:
        """List your snapshots, newest first; an admin's list holds everybody's."""
        page = await snapshots.list(caller, query.page_request("snap"), name=query.name, template=query.template)
        return SnapshotsAnswer(snapshots=[SnapshotAnswer.of(row) for row in page.items], next_cursor=next_cursor(page))

    @api.operation("GET", _SNAPSHOT, tag=_TAG, errors=(errors.SnapshotNotFound,))
    async def get_snapshot(caller: Caller, snapshot_id: SnapshotPath) -> SnapshotAnswer:
        """Get one snapshot."""
        return SnapshotAnswer.of(await snapshots.get(caller, snapshot_id))

    @api.operation(
        "DELETE", _SNAPSHOT, tag=_TAG, audit=Audit.CHANGE, errors=(errors.SnapshotNotFound, errors.Forbidden)
    )
    async def delete_snapshot(caller: Caller, snapshot_id: SnapshotPath) -> SnapshotDeletedAnswer:
        """Delete a snapshot. Environments that began with it keep their files."""
        await snapshots.delete(caller, snapshot_id)
        return SnapshotDeletedAnswer(snapshot_id=snapshot_id)
