"""The durable thing that a user makes."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sandgate.core.ids import EnvironmentId, UserId
from sandgate.core.limits import Limits
from sandgate.core.states import LIVE_ENVIRONMENT_STATUSES, EnvironmentStatus, Isolation


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment's row. ``timeout_s`` is its lifetime; at ``expires_at`` it is gone, whatever its code does.

    ``deleted_at`` is set when its owner deleted it: from then on it is not found any more. ``server_id`` names the
    server on whose machine its sandbox is.
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

    @property
    def is_live(self) -> bool:
        """Whether something of it may be running."""
        return self.status in LIVE_ENVIRONMENT_STATUSES

    def with_details(
        self, now: datetime, name: str | None, metadata: dict[str, str] | None, timeout_s: int | None
    ) -> "Environment":
        """The row with what is not None; a lifetime is counted from ``now``."""
        row = replace(
            self,
            name=self.name if name is None else name,
            metadata=self.metadata if metadata is None else dict(metadata),
        )
        if timeout_s is None:
            return row
        return replace(row, timeout_s=timeout_s, expires_at=now + timedelta(seconds=timeout_s))
