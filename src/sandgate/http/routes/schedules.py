"""Schedules: making, reading, changing and running them."""

from functools import partial
from typing import Annotated

from starlette.requests import Request

from sandgate.core import errors
from sandgate.core.trigger import Schedule
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.idempotency import keeper
from sandgate.http.marks import Query
from sandgate.http.models.schedules import (
    CreateSchedule,
    ListSchedules,
    ScheduleAnswer,
    ScheduleDeletedAnswer,
    SchedulesAnswer,
    UpcomingAnswer,
    UpcomingQuery,
    UpdateSchedule,
)
from sandgate.http.models.workflows import RunAnswer
from sandgate.http.pagination import next_cursor
from sandgate.http.paths import SchedulePath, parse_workflow_id
from sandgate.workflows.triggers import Schedules

_SCHEDULES = "/api/v1/orchestrator/schedules"
_SCHEDULE = f"{_SCHEDULES}/{{schedule_id}}"
_TAG = "schedules"
_SHOWN = 3


def add_schedule_routes(api: Api, schedules: Schedules) -> None:
    """Declare the operations."""
    _add_collection_routes(api, schedules)
    _add_item_routes(api, schedules)
    _add_time_routes(api, schedules)


def _add_collection_routes(api: Api, schedules: Schedules) -> None:
    @api.operation(
        "POST",
        _SCHEDULES,
        tag=_TAG,
        status=201,
        idempotent=True,
        errors=(errors.Forbidden, errors.WorkflowNotFound, errors.TooManyTriggers),
    )
    async def create_schedule(caller: Caller, body: CreateSchedule, request: Request) -> ScheduleAnswer:
        """Have a workflow started at times. Each tick starts the newest version, once, as the workflow's owner."""
        answer = partial(_answer, schedules)
        return answer(await schedules.create(caller, body.wanted(), keeper(request, answer)))

    @api.operation("GET", _SCHEDULES, tag=_TAG, errors=(errors.WorkflowNotFound,))
    async def list_schedules(caller: Caller, query: Annotated[ListSchedules, Query()]) -> SchedulesAnswer:
        """List your schedules, newest first; an admin's list holds everybody's."""
        workflow_id = None if query.workflow_id is None else parse_workflow_id(query.workflow_id)
        page = await schedules.list(caller, query.page_request("schedule"), workflow_id=workflow_id)
        rows = [_answer(schedules, row) for row in page.items]
        return SchedulesAnswer(schedules=rows, next_cursor=next_cursor(page))


def _add_item_routes(api: Api, schedules: Schedules) -> None:
    @api.operation("GET", _SCHEDULE, tag=_TAG, errors=(errors.ScheduleNotFound,))
    async def get_schedule(caller: Caller, schedule_id: SchedulePath) -> ScheduleAnswer:
        """Get one schedule: when it is due, what it started last, and what went wrong."""
        return _answer(schedules, await schedules.get(caller, schedule_id))

    @api.operation("PATCH", _SCHEDULE, tag=_TAG, errors=(errors.ScheduleNotFound, errors.Forbidden, errors.Conflict))
    async def update_schedule(caller: Caller, schedule_id: SchedulePath, body: UpdateSchedule) -> ScheduleAnswer:
        """Change a schedule, pause it, or resume it. Once its times change, only ticks from now on count."""
        return _answer(schedules, await schedules.update(caller, schedule_id, body.wanted()))

    @api.operation("DELETE", _SCHEDULE, tag=_TAG, errors=(errors.ScheduleNotFound, errors.Forbidden))
    async def delete_schedule(caller: Caller, schedule_id: SchedulePath) -> ScheduleDeletedAnswer:
        """Delete a schedule; the runs that it started go on."""
        await schedules.delete(caller, schedule_id)
        return ScheduleDeletedAnswer(schedule_id=schedule_id)


def _add_time_routes(api: Api, schedules: Schedules) -> None:
    @api.operation(
        "POST",
        f"{_SCHEDULE}/trigger",
        tag=_TAG,
        idempotent=True,
        errors=(
            errors.ScheduleNotFound,
            errors.Forbidden,
            errors.InvalidRequest,
            errors.Conflict,
            errors.TooManyRuns,
            errors.ServiceDraining,
        ),
    )
    async def trigger_schedule(caller: Caller, schedule_id: SchedulePath, request: Request) -> RunAnswer:
        """Start a run of a schedule now, paused or not, whatever else runs."""
        return RunAnswer.of(await schedules.trigger(caller, schedule_id, keeper(request, RunAnswer.of, 200)))

    @api.operation("GET", f"{_SCHEDULE}/upcoming", tag=_TAG, errors=(errors.ScheduleNotFound,))
    async def list_upcoming(
        caller: Caller, schedule_id: SchedulePath, query: Annotated[UpcomingQuery, Query()]
    ) -> UpcomingAnswer:
        """When a schedule starts runs next, as if it were not paused."""
        schedule = await schedules.get(caller, schedule_id)
        return UpcomingAnswer(schedule_id=schedule_id, upcoming=list(schedules.next_times(schedule, query.count)))


def _answer(schedules: Schedules, schedule: Schedule) -> ScheduleAnswer:
    return ScheduleAnswer.of(schedule, schedules.next_times(schedule, _SHOWN))
