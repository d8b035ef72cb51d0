"""The durable thing that a user makes."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sandgate.core.ids import EnvironmentId, SnapshotId, UserId
from sandgate.core.limits import Limits
from sandgate.core.network import NetworkRules
from sandgate.core.states import LIVE_ENVIRONMENT_STATUSES, EnvironmentStatus, Isolation, OnTimeout
from sandgate.core.variables import Variables
from sandgate.core.volume import MountedVolume


@dataclass(frozen=True, slots=True)
class NetworkChange:
    """Other rules for an environment, or None for no network any more."""

    rules: NetworkRules | None


@dataclass(frozen=True, slots=True)
class EnvironmentChange:
    """What is to be changed of an environment: what is not None. ``idle_timeout_s`` 0 is never."""

    name: str | None = None
    metadata: dict[str, str] | None = None
    timeout_s: int | None = None
    network: NetworkChange | None = None
    on_timeout: OnTimeout | None = None
    idle_timeout_s: int | None = None

    @property
    def wants_pause(self) -> bool:
        """Whether it asks for something that takes pausing."""
        return self.on_timeout is OnTimeout.PAUSE or bool(self.idle_timeout_s)


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment's row. ``timeout_s`` is its lifetime; at ``expires_at`` it is gone, whatever its code does.

    ``deleted_at`` is set when its owner deleted it: from then on it is not found any more. ``server_id`` names the
    server on whose machine its sandbox is. ``network`` None: it reaches nothing. Nobody having used it for
    ``idle_timeout_s`` it is paused. While it is paused, ``paused_at`` is since when, and ``remaining_s`` what is left
    of its lifetime, which stands still. Its files began as those of a snapshot, or of the environment that it is a copy
    of.
    """

    environment_id: EnvironmentId
    owner_id: UserId
    name: str
    template: str
    isolation: Isolation
    status: EnvironmentStatus
    timeout_s: int
    created_at: datetime
    expires_at: datetime
    limits: Limits
    metadata: dict[str, str] = field(default_factory=dict)
    status_reason: str | None = None
    ended_at: datetime | None = None
    deleted_at: datetime | None = None
    server_id: str | None = None
    network: NetworkRules | None = None
    variables: Variables = field(default_factory=Variables)
    on_timeout: OnTimeout = OnTimeout.DELETE
    idle_timeout_s: int | None = None
    paused_at: datetime | None = None
    remaining_s: float | None = None
    snapshot_id: SnapshotId | None = None
    forked_from: EnvironmentId | None = None
    volumes: tuple[MountedVolume, ...] = ()

    @property
    def largest_disk_bytes(self) -> int:
        """The size of the largest of its disks: its own, and its volumes."""
        return max(self.limits.disk_bytes, *(volume.size_bytes for volume in self.volumes), 0)

    @property
    def is_made_in_steps(self) -> bool:
        """Whether more has to be done before anybody may use it than to make its sandbox."""
        return self.begins_with_files or bool(self.volumes)

    @property
    def begins_with_files(self) -> bool:
        """Whether files are laid out in it before anybody may use it."""
        return self.snapshot_id is not None or self.forked_from is not None

    @property
    def is_live(self) -> bool:
        """Whether something of it may be running."""
        return self.status in LIVE_ENVIRONMENT_STATUSES

    def changed(self, change: EnvironmentChange, now: datetime) -> "Environment":
        """The row with a change; a lifetime is counted from ``now``."""
        row = replace(
            self,
            name=self.name if change.name is None else change.name,
            metadata=self.metadata if change.metadata is None else dict(change.metadata),
            network=self.network if change.network is None else change.network.rules,
            on_timeout=change.on_timeout or self.on_timeout,
            idle_timeout_s=self.idle_timeout_s if change.idle_timeout_s is None else change.idle_timeout_s or None,
        )
        timeout_s = change.timeout_s
        if timeout_s is None:
            return row
        if self.paused_at is not None:
            return replace(row, timeout_s=timeout_s, remaining_s=float(timeout_s))
        return replace(row, timeout_s=timeout_s, expires_at=now + timedelta(seconds=timeout_s))

    def paused(self, now: datetime, most_s: float, remaining_s: float) -> "Environment":
        """The row of it once it stands still, which it may for ``most_s``."""
        return replace(
            self,
            status=EnvironmentStatus.PAUSED,
            paused_at=now,
            remaining_s=remaining_s,
            expires_at=now + timedelta(seconds=most_s),
        )

    def resumed(self, now: datetime) -> "Environment":
        """The row of it once it goes on, with what was left of its lifetime."""
        left_s = self.timeout_s if self.remaining_s is None else self.remaining_s
        return replace(
            self,
            status=EnvironmentStatus.RUNNING,
            paused_at=None,
            remaining_s=None,
            expires_at=now + timedelta(seconds=left_s),
        )
