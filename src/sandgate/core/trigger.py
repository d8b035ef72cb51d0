"""What starts runs by itself: the records of schedules and webhooks, and the mark that a run keeps of its cause."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sandgate.core.ids import DeliveryId, RunId, ScheduleId, UserId, WebhookId, WorkflowId
from sandgate.core.workflow import Json


class TriggerType(StrEnum):
    """Who or what started a run."""

    API = "api"
    SCHEDULE = "schedule"
    WEBHOOK = "webhook"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why a run was started: by what, and for a schedule the time that it was due."""

    type: TriggerType = TriggerType.API
    id: str | None = None
    at: datetime | None = None


class CatchUp(StrEnum):
    """What becomes of ticks that nobody was there for: none of them runs, the last one, or all."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


class Overlap(StrEnum):
    """What becomes of a tick while a run of the schedule is not over."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"
    CANCEL_PREVIOUS = "cancel_previous"


class SkipReason(StrEnum):
    """Why a tick did not start a run."""

    MISSED = "missed"
    OVERLAP = "overlap"
    QUEUE_FULL = "queue_full"
    SUPERSEDED = "superseded"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class TickError:
    """Why a tick could not start a run: the code and message of the refusal."""

    code: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Timing:
    """When a schedule is due: a cron expression in a time zone, or every ``interval_s`` from ``anchor_at`` on.

    No tick is before ``start_at`` or after ``end_at``. ``jitter_s`` spreads schedules: each has a delay of its own
    below that, the same for all its ticks.
    """

    cron: str | None = None
    timezone: str = "UTC"
    interval_s: int | None = None
    anchor_at: datetime | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    jitter_s: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of ticks that are late, and of those that come while a run is not over.

    Of missed ticks none older than ``catch_up_window_s`` runs, and of those at most ``catch_up_limit``, the newest.
    """

    catch_up: CatchUp = CatchUp.LAST
    catch_up_limit: int = 10
    catch_up_window_s: int = 86_400
    overlap: Overlap = Overlap.ALLOW
    queue_limit: int = 10


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule's row.

    ``revision`` counts what was written, so that of two writers one wins. ``next_tick_at`` is the first tick that is
    not decided yet, ``due_at`` when to decide it (None: never). ``queue`` holds ticks that wait for a run to be over.
    """

    schedule_id: ScheduleId
    workflow_id: WorkflowId
    owner_id: UserId
    name: str
    timing: Timing
    policy: Policy
    created_at: datetime
    updated_at: datetime
    inputs: Mapping[str, Json] = field(default_factory=dict)
    paused: bool = False
    revision: int = 1
    next_tick_at: datetime | None = None
    due_at: datetime | None = None
    queue: tuple[datetime, ...] = ()
    last_tick_at: datetime | None = None
    last_run_at: datetime | None = None
    last_run_id: RunId | None = None
    last_error: TickError | None = None
    last_skipped_at: datetime | None = None
    last_skip_reason: SkipReason | None = None


class Signature(StrEnum):
    """How a webhook's requests are signed: not at all, by the form of this server, or by that of GitHub."""

    NONE = "none"
    SANDGATE = "sandgate"
    GITHUB = "github"


class DeliveryStatus(StrEnum):
    """What became of a request to a webhook."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook's row. Of its token only a SHA-256 is kept; its signing secret follows from ``salt`` and a key."""

    webhook_id: WebhookId
    workflow_id: WorkflowId
    owner_id: UserId
    name: str
    token_sha256: bytes
    created_at: datetime
    updated_at: datetime
    enabled: bool = True
    signature: Signature = Signature.NONE
    salt: bytes | None = None
    filter: str | None = None
    inputs: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request that came to a webhook, without what was in it. ``reason`` is the code of a refusal."""

    delivery_id: DeliveryId
    webhook_id: WebhookId
    received_at: datetime
    status: DeliveryStatus
    size_bytes: int
    content_type: str = ""
    run_id: RunId | None = None
    reason: str | None = None
