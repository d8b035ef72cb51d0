"""Reading, following and steering runs."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated

from starlette.requests import Request

from sandgate.core import errors
from sandgate.core.ids import RunId
from sandgate.core.principal import Principal
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.bodies import refuse_field
from sandgate.http.exchange import exchange_of
from sandgate.http.idempotency import keeper
from sandgate.http.marks import Query
from sandgate.http.models.runs import (
    EVENTS_EXAMPLE,
    FollowQuery,
    HistoryAnswer,
    HistoryQuery,
    ListRuns,
    RetryRun,
    RunsAnswer,
    StepQuery,
)
from sandgate.http.models.workflows import Decide, RunAnswer, RunStatusAnswer, StepRunAnswer
from sandgate.http.pagination import next_cursor
from sandgate.http.paths import RunPath, StepPath
from sandgate.http.streaming import (
    LAST_EVENT_ID,
    LAST_EVENT_ID_PARAMETER,
    MEDIA_TYPE,
    EventStream,
    ServerEvent,
    Streams,
)
from sandgate.workflows.base import Workflows
from sandgate.workflows.positions import Batch, Position, parse_position

_RUNS = "/api/v1/orchestrator/runs"
_RUN = f"{_RUNS}/{{run_id}}"
_TAG = "runs"

_STREAM = {
    "description": "Server-sent events until the run has ended.",
    "content": {MEDIA_TYPE: {"schema": {"description": "A stream of events."}, "example": EVENTS_EXAMPLE}},
}


def add_run_routes(api: Api, workflows: Workflows, streams: Streams) -> None:
    """Declare the operations."""
    _add_reading_routes(api, workflows)
    _add_event_route(api, workflows, streams)
    _add_steering_routes(api, workflows)
    _add_decision_routes(api, workflows)


def _add_reading_routes(api: Api, workflows: Workflows) -> None:
    @api.operation("GET", _RUNS, tag=_TAG, errors=(errors.WorkflowNotFound,))
    async def list_runs(caller: Caller, query: Annotated[ListRuns, Query()]) -> RunsAnswer:
        """List your runs, newest first; an admin's list holds everybody's."""
        page = await workflows.list_runs(caller, query.filter(), query.page_request("run"))
        return RunsAnswer(runs=[RunAnswer.of(run) for run in page.items], next_cursor=next_cursor(page))

    @api.operation("GET", _RUN, tag=_TAG, errors=(errors.RunNotFound,))
    async def get_run(caller: Caller, run_id: RunPath) -> RunStatusAnswer:
        """Get one run and how far each of its steps is."""
        return RunStatusAnswer.of_view(await workflows.view(caller, run_id))

    @api.operation("GET", f"{_RUN}/steps/{{step}}", tag=_TAG, errors=(errors.RunNotFound, errors.StepNotFound))
    async def get_run_step(
        caller: Caller, run_id: RunPath, step: StepPath, query: Annotated[StepQuery, Query()]
    ) -> StepRunAnswer:
        """Get one step of a run, or one of its items, with all of its output."""
        return StepRunAnswer.of(await workflows.get_step(caller, run_id, step, query.item))

    @api.operation("GET", f"{_RUN}/history", tag=_TAG, errors=(errors.RunNotFound,))
    async def list_run_history(
        caller: Caller, run_id: RunPath, query: Annotated[HistoryQuery, Query()]
    ) -> HistoryAnswer:
        """What happened to a run: oldest first, unlike other lists, as a history is read."""
        events, more_from = await workflows.list_history(caller, run_id, query.first(), query.limit)
        return HistoryAnswer.of(events, more_from)


def _add_event_route(api: Api, workflows: Workflows, streams: Streams) -> None:
    @api.operation(
        "GET",
        f"{_RUN}/events",
        tag=_TAG,
        errors=(errors.RunNotFound, errors.TooManyStreams),
        extra={"responses": {"200": _STREAM}, "parameters": [LAST_EVENT_ID_PARAMETER]},
    )
    async def follow_run(
        caller: Caller, run_id: RunPath, request: Request, query: Annotated[FollowQuery, Query()]
    ) -> EventStream:
        """Follow a run: its history as it happens, and what its steps write while they write it."""
        position = _position(exchange_of(request.scope).headers.get(LAST_EVENT_ID), query.after)
        batches = await workflows.follow(caller, run_id, position)
        return EventStream(streams, caller.user_id, _events(batches))


def _position(header: bytes | None, after: str | None) -> Position:
    """What the client has read. The header is stronger: a browser sends it when it comes again with the same URL."""
    name, text = ("Last-Event-ID", header.decode("latin-1")) if header else ("after", after)
    if not text:
        return Position()
    position = parse_position(text)
    if position is None:
        refuse_field(name, "is not an id of an event of this stream; send one as it came, or none")
    return position


async def _events(batches: AsyncGenerator[Batch, None]) -> AsyncGenerator[Sequence[ServerEvent], None]:
    async with aclosing(batches):
        async for batch in batches:
            yield [ServerEvent(event.kind, event.position, event.data) for event in batch]


def _add_steering_routes(api: Api, workflows: Workflows) -> None:
    @api.operation("POST", f"{_RUN}/cancel", tag=_TAG, errors=(errors.RunNotFound, errors.Forbidden, errors.RunEnded))
    async def cancel_run(caller: Caller, run_id: RunPath) -> RunAnswer:
        """Kill what runs, let `finally` tidy up, and answer the run once it has ended."""
        return RunAnswer.of(await workflows.cancel(caller, run_id))

    @api.operation(
        "POST",
        f"{_RUN}/retry",
        tag=_TAG,
        idempotent=True,
        errors=(
            errors.InvalidRequest,
            errors.RunNotFound,
            errors.WorkflowNotFound,
            errors.Forbidden,
            errors.RunLive,
            errors.RunSucceeded,
            errors.TooManyRuns,
            errors.ServiceDraining,
        ),
    )
    async def retry_run(caller: Caller, run_id: RunPath, request: Request, body: RetryRun | None = None) -> RunAnswer:
        """Let a run that ended badly go on: what succeeded stays, what did not is open again, with what follows it."""
        from_step = None if body is None else body.from_step
        return RunAnswer.of(await workflows.retry(caller, run_id, from_step, keeper(request, RunAnswer.of, 200)))


def _add_decision_routes(api: Api, workflows: Workflows) -> None:
    refusals = (errors.RunNotFound, errors.Forbidden, errors.RunEnded, errors.StepNotWaiting)

    async def decide(caller: Principal, run_id: RunId, step: str, body: Decide, *, approved: bool) -> RunStatusAnswer:
        view = await workflows.decide(caller, run_id, step, approved=approved, comment=body.comment, item=body.item)
        return RunStatusAnswer.of_view(view)

    @api.operation("POST", f"{_RUN}/steps/{{step}}/approve", tag=_TAG, errors=refusals)
    async def approve_step(
        caller: Caller, run_id: RunPath, step: StepPath, body: Decide | None = None
    ) -> RunStatusAnswer:
        """Let a run go on that waits for an approval."""
        return await decide(caller, run_id, step, body or Decide(), approved=True)

    @api.operation("POST", f"{_RUN}/steps/{{step}}/reject", tag=_TAG, errors=refusals)
    async def reject_step(
        caller: Caller, run_id: RunPath, step: StepPath, body: Decide | None = None
    ) -> RunStatusAnswer:
        """Refuse an approval: the step fails."""
        return await decide(caller, run_id, step, body or Decide(), approved=False)
