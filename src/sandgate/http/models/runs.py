"""What clients send and get to read about runs, their history and their events."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from sandgate.core.run import HistoryEvent, RunStatus
from sandgate.http.models.base import Model
from sandgate.http.models.parts import Cursor, with_example
from sandgate.http.models.workflows import RUN_EXAMPLE, RunAnswer
from sandgate.http.pagination import Digits, PageQuery, number_cursor, parse_number
from sandgate.http.paths import parse_workflow_id
from sandgate.store.base import RunFilter
from sandgate.workflows.names import MAX_ITEMS

_TIME = "2026-01-01T00:00:00Z"
_EVENT = {
    "number": 2,
    "at": _TIME,
    "kind": "step_succeeded",
    "step": "step1",
    "item": None,
    "attempt": 1,
    "details": {"reason": "succeeded"},
}
EVENTS_EXAMPLE = (
    'id: 2\nevent: step_started\ndata: {"number":1,"at":"2026-01-01T00:00:00Z","kind":"step_started","step":"step1",'
    '"item":null,"attempt":1,"details":{}}\n\n'
    'id: 2:1.7.0\nevent: stdout\ndata: {"step":"step1","item":null,"attempt":1,"text":"Step 1\\n"}\n\n'
)

Status = Literal["pending", "running", "waiting", "succeeded", "failed", "cancelled", "timed_out"]


def _time(value: Any) -> Any:
    """A text with a time zone; anything else is for the model to refuse."""
    if not isinstance(value, str):
        return value
    try:
        # A plus sign that was not escaped arrives as a space.
        found = datetime.fromisoformat(value.replace(" ", "+")).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"has to be a time with its offset, as in {_TIME}") from None
    if "T" not in value or datetime.fromisoformat(value.replace(" ", "+")).tzinfo is None:
        raise ValueError(f"has to be a time with its offset, as in {_TIME}")
    if not 1970 <= found.year < 9000:
        raise ValueError("has to be a year from 1970 to 8999")
    return found


Time = Annotated[datetime, BeforeValidator(_time)]


class ListRuns(PageQuery):
    """Which runs are wanted."""

    workflow_id: Annotated[str | None, Field(max_length=80)] = None
    status: Annotated[
        list[Status] | None, Field(max_length=len(RunStatus), description="May be given more than once.")
    ] = None
    name: Annotated[str | None, Field(max_length=128, description="The name that the workflow had.")] = None
    created_after: Annotated[Time | None, Field(description="Made at that time or later.")] = None
    created_before: Annotated[Time | None, Field(description="Made before that time.")] = None

    def filter(self) -> RunFilter:
        """For a store. Raises ``WorkflowNotFound`` for what is no id."""
        return RunFilter(
            workflow_id=None if self.workflow_id is None else parse_workflow_id(self.workflow_id),
            statuses=None if self.status is None else frozenset(map(RunStatus, self.status)),
            workflow_name=self.name,
            created_after=self.created_after,
            created_before=self.created_before,
        )


class HistoryQuery(PageQuery):
    """Which part of a history is wanted."""

    def first(self) -> int:
        """The number of the first entry. Raises ``InvalidRequest`` for a cursor that is not one of this list's."""
        return 0 if self.cursor is None else parse_number(self.cursor)


class FollowQuery(Model):
    """Where to begin."""

    model_config = ConfigDict(strict=True, extra="forbid")

    after: Annotated[
        str | None, Field(max_length=8000, description="The `id` of an event, as `Last-Event-ID`, which is stronger.")
    ] = None


class RetryRun(Model):
    """From where on a run is retried."""

    model_config = ConfigDict(strict=True, extra="forbid", json_schema_extra={"examples": [{"from": "step1"}]})

    from_step: Annotated[
        str | None,
        Field(alias="from", max_length=63, description="A step that is done again whatever it came to."),
    ] = None


class RunsAnswer(Model):
    """A page of runs, newest first."""

    model_config = with_example({"runs": [RUN_EXAMPLE], "next_cursor": None})

    runs: list[RunAnswer]
    next_cursor: Cursor


class HistoryEventAnswer(Model):
    """Something that happened to a run, or to a step, or to one of its items."""

    number: int
    at: datetime
    kind: str
    step: str | None
    item: int | None
    attempt: int | None
    details: dict[str, Any]


class StepQuery(Model):
    """Which item is wanted."""

    model_config = ConfigDict(strict=True, extra="forbid")

    item: Annotated[
        int | None,
        Digits,
        Field(ge=0, lt=MAX_ITEMS, description="Index of an item of a step with `foreach`; by default the whole step."),
    ] = None


class HistoryAnswer(Model):
    """A page of a run's history, oldest first."""

    model_config = with_example({"events": [_EVENT], "next_cursor": None})

    events: list[HistoryEventAnswer]
    next_cursor: Cursor

    @classmethod
    def of(cls, events: Sequence[HistoryEvent], more_from: int | None) -> "HistoryAnswer":
        """From the records."""
        shown = [
            HistoryEventAnswer(
                number=event.number,
                at=event.at,
                kind=event.kind,
                step=event.step,
                item=event.item,
                attempt=event.attempt,
                details=dict(event.details),
            )
            for event in events
        ]
        return cls(events=shown, next_cursor=None if more_from is None else number_cursor(more_from))
