"""What clients send and get to read about schedules."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field

from sandgate.core.ids import WorkflowId
from sandgate.core.trigger import CatchUp, Overlap, Policy, Schedule, SkipReason, Timing
from sandgate.http.models.base import Model
from sandgate.http.models.parts import Cursor, with_example
from sandgate.http.models.requests import Change
from sandgate.http.pagination import PageQuery
from sandgate.http.paths import parse_workflow_id
from sandgate.workflows.cron import LONGEST_CRON, LONGEST_ZONE
from sandgate.workflows.triggers import NewSchedule, ScheduleChange

_SCHEDULE_ID = "schedule-06evrhxq8g000wmabyzsqnd3wf"
_WORKFLOW_ID = "workflow-06evrhxq8g000wmabyzsqnd3wf"
_TIME = "2026-01-01T00:00:00Z"
_SCHEDULE = {
    "schedule_id": _SCHEDULE_ID,
    "workflow_id": _WORKFLOW_ID,
    "name": "every morning",
    "status": "active",
    "paused": False,
    "cron": "0 7 * * MON-FRI",
    "timezone": "Europe/Berlin",
    "interval": None,
    "anchor_at": None,
    "start_at": None,
    "end_at": None,
    "jitter": 0,
    "catch_up": "last",
    "catch_up_limit": 10,
    "catch_up_window": 86400,
    "overlap": "skip",
    "queue_limit": 10,
    "inputs": {},
    "creation_time": _TIME,
    "updated_at": _TIME,
    "owner_id": "user-06evrhwp4g000e8v0zrc4v1m6h",
    "next_run_at": "2026-01-02T06:00:00Z",
    "upcoming": ["2026-01-02T06:00:00Z", "2026-01-05T06:00:00Z"],
    "queued": [],
    "last_run_at": None,
    "last_run_id": None,
    "last_error": None,
    "last_skipped": None,
}
_NEW = {"workflow_id": _WORKFLOW_ID, "cron": "0 7 * * MON-FRI", "timezone": "Europe/Berlin", "overlap": "skip"}
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _parse_moment(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("has to be a time with its offset, as in 2026-01-31T08:00:00Z") from None


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Moment = Annotated[AwareDatetime, BeforeValidator(_parse_moment), Field(ge=_EARLIEST, le=_LATEST)]
_WHOLE = BeforeValidator(_whole)

Cron = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LONGEST_CRON,
        description="Minute, hour, day of the month, month, day of the week; or @hourly, @daily, @weekly, @monthly, "
        "@yearly.",
    ),
]
Zone = Annotated[str, Field(min_length=1, max_length=LONGEST_ZONE, description="As in Europe/Berlin; by default UTC.")]
Interval = Annotated[int, Field(ge=1, le=366 * 86_400, description="Seconds."), _WHOLE]
Jitter = Annotated[
    int, Field(ge=0, le=3600, description="A delay of the schedule's own below so many seconds."), _WHOLE
]
CatchUpWord = Annotated[
    Literal["none", "last", "all"], Field(description="Which ticks run that were missed while no server was there.")
]
CatchUpLimit = Annotated[int, Field(ge=1, le=100, description="Of missed ticks `all` runs so many, the last."), _WHOLE]
CatchUpWindow = Annotated[
    int, Field(ge=0, le=7 * 86_400, description="Seconds; a tick that was missed by more does not run."), _WHOLE
]
OverlapWord = Annotated[
    Literal["allow", "skip", "queue", "cancel_previous"],
    Field(description="What becomes of a tick while a run of the schedule is not over."),
]
QueueLimit = Annotated[int, Field(ge=1, le=100), _WHOLE]
Label = Annotated[str, Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]


def request_config(example: dict[str, Any], **more: Any) -> ConfigDict:
    """The settings of a request's model with an example for the document."""
    extra = {"examples": [example], **more}
    return ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, json_schema_extra=extra)


class CreateSchedule(Model):
    """A new schedule: `cron`, or `interval` in seconds counted from `anchor_at`."""

    model_config = request_config(_NEW)

    workflow_id: Annotated[str, Field(max_length=80)]
    cron: Cron | None = None
    timezone: Zone = "UTC"
    interval: Interval | None = None
    anchor_at: Moment | None = None
    start_at: Moment | None = None
    end_at: Moment | None = None
    jitter: Jitter = 0
    catch_up: CatchUpWord = "last"
    catch_up_limit: CatchUpLimit = 10
    catch_up_window: CatchUpWindow = 86_400
    overlap: OverlapWord = "allow"
    queue_limit: QueueLimit = 10
    name: Label = ""
    inputs: dict[str, Any] = Field(default_factory=dict)
    paused: bool = False

    def wanted(self) -> NewSchedule:
        """For the use case. Raises ``WorkflowNotFound``."""
        timing = Timing(
            self.cron, self.timezone, self.interval, self.anchor_at, self.start_at, self.end_at, self.jitter
        )
        policy = Policy(
            CatchUp(self.catch_up), self.catch_up_limit, self.catch_up_window, Overlap(self.overlap), self.queue_limit
        )
        workflow_id: WorkflowId = parse_workflow_id(self.workflow_id)
        return NewSchedule(workflow_id, timing, policy, self.name, self.inputs, self.paused)


class UpdateSchedule(Change):
    """What is to be changed. `cron` takes the place of `interval`, and `interval` that of `cron`.

    `start_at` and `end_at` are taken away by null.
    """

    CLEARED = frozenset({"start_at", "end_at"})

    model_config = request_config({"paused": True}, minProperties=1)

    cron: Cron | None = None
    timezone: Zone | None = None
    interval: Interval | None = None
    anchor_at: Moment | None = None
    start_at: Moment | None = None
    end_at: Moment | None = None
    jitter: Jitter | None = None
    catch_up: CatchUpWord | None = None
    catch_up_limit: CatchUpLimit | None = None
    catch_up_window: CatchUpWindow | None = None
    overlap: OverlapWord | None = None
    queue_limit: QueueLimit | None = None
    name: Label | None = None
    inputs: dict[str, Any] | None = None
    paused: bool | None = None

    def wanted(self) -> ScheduleChange:
        """For the use case."""
        given = self.model_dump(exclude_unset=True)
        timing = {field: given[name] for name, field in _TIMING.items() if name in given}
        policy = {field: given[name] for name, field in _POLICY.items() if name in given}
        words = {"catch_up": CatchUp, "overlap": Overlap}
        policy = {name: words[name](value) if name in words else value for name, value in policy.items()}
        return ScheduleChange({name: given[name] for name in _ROW if name in given}, timing, policy)


# The names of the API and those of the records.
_TIMING = {
    "cron": "cron", "timezone": "timezone", "interval": "interval_s", "anchor_at": "anchor_at", "start_at": "start_at",
    "end_at": "end_at", "jitter": "jitter_s",
}  # fmt: skip
_POLICY = {
    "catch_up": "catch_up", "catch_up_limit": "catch_up_limit", "catch_up_window": "catch_up_window_s",
    "overlap": "overlap", "queue_limit": "queue_limit",
}  # fmt: skip
_ROW = ("name", "inputs", "paused")


class ListSchedules(PageQuery):
    """Which schedules are wanted."""

    workflow_id: Annotated[str | None, Field(max_length=80)] = None


def _digits(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 9 else value


class UpcomingQuery(Model):
    """How many times are wanted."""

    model_config = ConfigDict(strict=True, extra="forbid")

    count: Annotated[int, BeforeValidator(_digits), Field(ge=1, le=100)] = 10


class TickErrorAnswer(Model):
    """Why no run was started the last time."""

    code: str
    message: str
    at: datetime


class SkippedAnswer(Model):
    """The last tick that started no run: missed, another run was not over, the queue was full, a later tick came."""

    at: datetime
    reason: SkipReason


class ScheduleAnswer(Model):
    """A schedule. `upcoming` holds the next times, also of one that is paused; `queued` the ticks that wait."""

    model_config = with_example(_SCHEDULE)

    schedule_id: str
    workflow_id: str
    name: str
    status: Annotated[Literal["active", "paused", "ended"], Field(description="`ended`: it is never due again.")]
    paused: bool
    cron: str | None
    timezone: str
    interval: int | None
    anchor_at: datetime | None
    start_at: datetime | None
    end_at: datetime | None
    jitter: int
    catch_up: CatchUp
    catch_up_limit: int
    catch_up_window: int
    overlap: Overlap
    queue_limit: int
    inputs: dict[str, Any]
    creation_time: datetime
    updated_at: datetime
    owner_id: str
    next_run_at: datetime | None
    upcoming: list[datetime]
    queued: list[datetime]
    last_run_at: datetime | None
    last_run_id: str | None
    last_error: TickErrorAnswer | None
    last_skipped: SkippedAnswer | None

    @classmethod
    def of(cls, row: Schedule, upcoming: Sequence[datetime]) -> "ScheduleAnswer":
        """From the record, and the times that come next."""
        error, skipped_at, reason = row.last_error, row.last_skipped_at, row.last_skip_reason
        kept = {name: getattr(row, name) for name in ("schedule_id", "workflow_id", "name", "paused", "updated_at")}
        kept |= {name: getattr(row, name) for name in ("owner_id", "last_run_at", "last_run_id")}
        kept |= {name: getattr(row.timing, field) for name, field in _TIMING.items()}
        kept |= {name: getattr(row.policy, field) for name, field in _POLICY.items()}
        return cls(
            **kept,
            status="paused" if row.paused else "active" if row.due_at is not None or row.queue else "ended",
            inputs=dict(row.inputs),
            creation_time=row.created_at,
            next_run_at=row.due_at,
            upcoming=list(upcoming),
            queued=list(row.queue),
            last_error=None if error is None else TickErrorAnswer(code=error.code, message=error.message, at=error.at),
            last_skipped=SkippedAnswer(at=skipped_at, reason=reason) if skipped_at and reason else None,
        )


class SchedulesAnswer(Model):
    """A page of schedules, newest first."""

    model_config = with_example({"schedules": [_SCHEDULE], "next_cursor": None})

    schedules: list[ScheduleAnswer]
    next_cursor: Cursor


class ScheduleDeletedAnswer(Model):
    """The schedule starts nothing any more; its runs go on."""

    model_config = with_example({"schedule_id": _SCHEDULE_ID, "status": "deleted"})

    schedule_id: str
    status: Literal["deleted"] = "deleted"


class UpcomingAnswer(Model):
    """The next times at which the schedule starts a run, as if it were not paused."""

    model_config = with_example({"schedule_id": _SCHEDULE_ID, "upcoming": ["2026-01-02T06:00:00Z"]})

    schedule_id: str
    upcoming: list[datetime]
