"""Rows of environments that are about to be made."""

from dataclasses import replace
from datetime import datetime, timedelta

from sandgate.config.settings import Settings
from sandgate.core.environment import Environment
from sandgate.core.ids import UserId, make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.states import EnvironmentStatus, Isolation
from sandgate.core.template import Template
from sandgate.core.volume import MountedVolume
from sandgate.environments.base import NewEnvironment
from sandgate.environments.life import NewCopies


def begin(
    owner_id: UserId,
    wanted: NewEnvironment,
    template: Template,
    isolation: Isolation,
    limits: Limits,
    now: datetime,
    settings: Settings,
    server_id: str,
    volumes: tuple[MountedVolume, ...] = (),
) -> Environment:
    """The row of a new one."""
    timeout_s = wanted.timeout_s or settings.default_environment_timeout_s
    idle_timeout_s = wanted.idle_timeout_s
    if idle_timeout_s is None:
        idle_timeout_s = settings.default_idle_timeout_s
    return Environment(
        environment_id=make_environment_id(),
        owner_id=owner_id,
        name=wanted.name,
        template=template.reference,
        isolation=isolation,
        status=EnvironmentStatus.CREATING,
        timeout_s=timeout_s,
        created_at=now,
        expires_at=now + timedelta(seconds=timeout_s),
        limits=limits,
        metadata=dict(wanted.metadata or {}),
        server_id=server_id,
        network=wanted.network,
        variables=wanted.variables,
        on_timeout=wanted.on_timeout,
        idle_timeout_s=idle_timeout_s or None,
        snapshot_id=wanted.snapshot_id,
        volumes=volumes,
    )


def copy(row: Environment, wanted: NewCopies, now: datetime, server_id: str) -> Environment:
    """The row of a copy: as the one that it is a copy of, with a life of its own."""
    timeout_s = wanted.timeout_s or row.timeout_s
    return replace(
        row,
        environment_id=make_environment_id(),
        name=row.name if wanted.name is None else wanted.name,
        metadata=dict(row.metadata if wanted.metadata is None else wanted.metadata),
        status=EnvironmentStatus.CREATING,
        status_reason=None,
        timeout_s=timeout_s,
        created_at=now,
        expires_at=now + timedelta(seconds=timeout_s),
        paused_at=None,
        remaining_s=None,
        server_id=server_id,
        snapshot_id=None,
        forked_from=row.environment_id,
    )
