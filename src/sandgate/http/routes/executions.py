"""Running code, and reading how it went."""

import re
from typing import Annotated, Any

from starlette.requests import Request

from sandgate.core import errors
from sandgate.core.principal import Principal
from sandgate.environments.base import Environments
from sandgate.environments.following import parse_offsets
from sandgate.environments.journal import Offsets
from sandgate.http.api import Api
from sandgate.http.audit import Audit
from sandgate.http.authentication import Caller
from sandgate.http.bodies import refuse_field
from sandgate.http.connection import while_connected
from sandgate.http.exchange import exchange_of
from sandgate.http.idempotency import HEADER as IDEMPOTENCY_HEADER
from sandgate.http.marks import Query
from sandgate.http.models.code import Execute
from sandgate.http.models.environments import ExecutionAnswer, ExecutionsAnswer
from sandgate.http.models.executions import EVENTS_EXAMPLE, FollowExecution, RenderedEvents
from sandgate.http.pagination import PageQuery, next_cursor
from sandgate.http.paths import EnvironmentPath, ExecutionPath, parse_session_id
from sandgate.http.streaming import LAST_EVENT_ID, LAST_EVENT_ID_PARAMETER, MEDIA_TYPE, EventStream, Streams

_ENVIRONMENT = "/api/v1/sandbox/environments/{environment_id}"
_TAG = "executions"
_NOT_WANTED = re.compile(rb"q=0(?:\.0{0,3})?")

_STREAM_CONTENT: dict[str, Any] = {
    MEDIA_TYPE: {"schema": {"description": "A stream of events."}, "example": EVENTS_EXAMPLE}
}
_STREAM = {"description": "Server-sent events until the execution has ended.", "content": _STREAM_CONTENT}


def add_execution_routes(api: Api, environments: Environments, streams: Streams) -> None:
    """Declare the operations. ``execute`` comes first: it is asked for most, and paths are tried in order."""
    _add_execute(api, environments, streams)
    _add_record_routes(api, environments)
    _add_events_route(api, environments, streams)


def _add_execute(api: Api, environments: Environments, streams: Streams) -> None:
    @api.operation(
        "POST",
        f"{_ENVIRONMENT}/execute",
        tag=_TAG,
        audit=Audit.SUMMED,
        idempotent=True,
        errors=(
            errors.EnvironmentNotFound,
            errors.Forbidden,
            errors.EnvironmentNotRunning,
            errors.EnvironmentElsewhere,
            errors.UnknownLanguage,
            errors.CodeTooLarge,
            errors.SecretUnreadable,
            errors.ExecutionInputTooLarge,
            errors.TooManyExecutionFiles,
            errors.TooManyExecutions,
            errors.SessionNotFound,
            errors.SessionEnded,
            errors.SessionBusy,
            errors.TooManyStreams,
            errors.ExecutionQuotaExceeded,
            errors.ServiceDraining,
        ),
        extra={"responses": {"200": {"content": _STREAM_CONTENT}}},
    )
    async def execute(
        caller: Caller, environment_id: EnvironmentPath, body: Execute, request: Request
    ) -> ExecutionAnswer | EventStream:
        """Run code in the environment and answer how it went.

        Waits for an environment that is still being made. Each execution is a fresh interpreter on the environment's
        files: variables do not carry over, files do. Executions may run side by side. When the client goes away, the
        execution is cancelled, unless it has asked to `detach`. With `stream`, or `Accept: text/event-stream`, the
        answer is server-sent events: `started`, `stdout` and `stderr` as they are written, and `finished`.

        With `session_id` the code is run by that session, after what waits there already: variables, imports and the
        current folder stay, and `results` has what was shown (`result` events in a stream).
        """
        row = await environments.get(caller, environment_id)
        session_id = None if body.session_id is None else parse_session_id(body.session_id)
        asked = (caller, environment_id, body.code, body.timeout, body.around(), body.language, session_id)
        if body.stream or _wants_events(request):
            _check_can_stream(request, streams, caller)
            events = await environments.stream_execution(*asked, detach=body.detach)
            return EventStream(streams, caller.user_id, RenderedEvents(events, row.isolation), is_bounded=True)
        if body.detach:
            return ExecutionAnswer.of(await environments.begin_execution(*asked), row.isolation)
        work = environments.execute(*asked)
        return ExecutionAnswer.of(await while_connected(request.receive, work), row.isolation)


def _wants_events(request: Request) -> bool:
    """Whether the client says that it reads events."""
    accepted = exchange_of(request.scope).headers.get(b"accept", b"")
    return MEDIA_TYPE.encode() in accepted and any(map(_names_events, accepted.split(b",")))


def _names_events(part: bytes) -> bool:
    """Whether a part of ``Accept`` is for events, and not against them. Source: RFC 9110, section 12.4.2."""
    kind, *parameters = (each.strip().lower() for each in part.split(b";"))
    return kind == MEDIA_TYPE.encode() and not any(map(_NOT_WANTED.fullmatch, parameters))


def _check_can_stream(request: Request, streams: Streams, caller: Principal) -> None:
    """Before anything is begun. Raises ``InvalidRequest``, ``TooManyStreams``.

    There would be no answer to keep under a key.
    """
    if IDEMPOTENCY_HEADER in exchange_of(request.scope).headers:
        refuse_field("Idempotency-Key", "cannot come with a request for a stream; ask for `detach` without `stream`")
    streams.check_room(caller.user_id)


def _add_record_routes(api: Api, environments: Environments) -> None:
    @api.operation("GET", f"{_ENVIRONMENT}/executions", tag=_TAG, errors=(errors.EnvironmentNotFound,))
    async def list_executions(
        caller: Caller, environment_id: EnvironmentPath, query: Annotated[PageQuery, Query()]
    ) -> ExecutionsAnswer:
        """List the environment's executions, newest first. Records are kept for a week by default."""
        row = await environments.get(caller, environment_id)
        page = await environments.list_executions(caller, environment_id, query.page_request("exec"))
        answers = [ExecutionAnswer.of(item, row.isolation) for item in page.items]
        return ExecutionsAnswer(executions=answers, next_cursor=next_cursor(page))

    @api.operation(
        "GET",
        f"{_ENVIRONMENT}/executions/{{execution_id}}",
        tag=_TAG,
        errors=(errors.EnvironmentNotFound, errors.ExecutionNotFound),
    )
    async def get_execution(
        caller: Caller, environment_id: EnvironmentPath, execution_id: ExecutionPath
    ) -> ExecutionAnswer:
        """Get one execution, running or ended."""
        row = await environments.get(caller, environment_id)
        return ExecutionAnswer.of(await environments.get_execution(caller, environment_id, execution_id), row.isolation)

    @api.operation(
        "POST",
        f"{_ENVIRONMENT}/executions/{{execution_id}}/cancel",
        tag=_TAG,
        errors=(
            errors.EnvironmentNotFound,
            errors.ExecutionNotFound,
            errors.Forbidden,
            errors.ExecutionNotRunning,
            errors.EnvironmentElsewhere,
        ),
    )
    async def cancel_execution(
        caller: Caller, environment_id: EnvironmentPath, execution_id: ExecutionPath
    ) -> ExecutionAnswer:
        """Kill a running execution and everything that it started; answers its record."""
        row = await environments.get(caller, environment_id)
        return ExecutionAnswer.of(
            await environments.cancel_execution(caller, environment_id, execution_id), row.isolation
        )


def _add_events_route(api: Api, environments: Environments, streams: Streams) -> None:
    @api.operation(
        "GET",
        f"{_ENVIRONMENT}/executions/{{execution_id}}/events",
        tag=_TAG,
        errors=(errors.EnvironmentNotFound, errors.ExecutionNotFound, errors.TooManyStreams),
        extra={"responses": {"200": _STREAM}, "parameters": [LAST_EVENT_ID_PARAMETER]},
    )
    async def follow_execution(
        caller: Caller,
        environment_id: EnvironmentPath,
        execution_id: ExecutionPath,
        request: Request,
        query: Annotated[FollowExecution, Query()],
    ) -> EventStream:
        """Follow an execution that runs, or see again what one that has ended wrote.

        What is recorded of the output is told from its beginning on; of what is more, the newest part is held while the
        execution runs, and `skipped` says how much is missing.
        """
        row = await environments.get(caller, environment_id)
        offsets = _offsets(exchange_of(request.scope).headers.get(LAST_EVENT_ID), query.after)
        events = await environments.follow_execution(caller, environment_id, execution_id, offsets)
        return EventStream(streams, caller.user_id, RenderedEvents(events, row.isolation))


def _offsets(header: bytes | None, after: str | None) -> Offsets | None:
    """What the client has read. The header is stronger: a browser sends it when it comes again with the same URL."""
    name, text = ("Last-Event-ID", header.decode("latin-1")) if header else ("after", after)
    if not text:
        return None
    offsets = parse_offsets(text)
    if offsets is None:
        refuse_field(name, "is not an id of an event of this stream; send one as it came, or none")
    return offsets
