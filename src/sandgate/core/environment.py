"""The durable thing that a user makes."""

from dataclasses import dataclass, field
from datetime import datetime

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
