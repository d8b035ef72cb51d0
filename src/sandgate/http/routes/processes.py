"""Processes in the background of environments."""

from typing import Annotated, Any

from starlette.requests import Request

from sandgate.core import errors
from sandgate.environments.process_cases import Processes
from sandgate.environments.process_output import ProcessPosition, parse_position
from sandgate.http.api import Api
from sandgate.http.audit import Audit
from sandgate.http.authentication import Caller
from sandgate.http.bodies import read_body, refuse_field
from sandgate.http.connection import while_connected
from sandgate.http.exchange import exchange_of
from sandgate.http.file_answer import OCTETS_CONTENT
from sandgate.http.marks import Query
from sandgate.http.models.processes import (
    PROCESS_EVENTS_EXAMPLE,
    FeedProcess,
    InputAnswer,
    ProcessAnswer,
    ProcessesAnswer,
    ProcessOutputAnswer,
    ReadProcess,
    RenderedProcessEvents,
    SignalProcess,
    StartProcess,
    TerminalWanted,
    WaitForProcess,
)
from sandgate.http.paths import EnvironmentPath, ProcessPath
from sandgate.http.streaming import LAST_EVENT_ID, LAST_EVENT_ID_PARAMETER, MEDIA_TYPE, EventStream, Streams

_PROCESSES = "/api/v1/sandbox/environments/{environment_id}/processes"
_PROCESS = f"{_PROCESSES}/{{process_id}}"
_TAG = "processes"
_OF_ENVIRONMENT = (errors.EnvironmentNotFound, errors.EnvironmentNotRunning, errors.EnvironmentElsewhere)
_SEES = (*_OF_ENVIRONMENT, errors.ProcessNotFound)
_TELLS = (*_SEES, errors.Forbidden, errors.ProcessNotRunning)
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": OCTETS_CONTENT}}
_STREAM: dict[str, Any] = {
    "description": "Server-sent events until the process has ended.",
    "content": {
        MEDIA_TYPE: {"schema": {"description": "A stream of events."}, "example": PROCESS_EVENTS_EXAMPLE},
    },
}


def add_process_routes(api: Api, processes: Processes, streams: Streams, most_input_bytes: int) -> None:
    """Declare the operations. Input comes in bodies of at most ``most_input_bytes``."""
    _add_start_route(api, processes)
    _add_reading_routes(api, processes)
    _add_following_route(api, processes, streams)
    _add_input_route(api, processes, most_input_bytes)
    _add_telling_routes(api, processes)


def _add_start_route(api: Api, processes: Processes) -> None:
    @api.operation(
        "POST",
        _PROCESSES,
        tag=_TAG,
        status=201,
        idempotent=True,
        errors=(
            *_OF_ENVIRONMENT,
            errors.Forbidden,
            errors.TooManyProcesses,
            errors.TooManyExecutions,
            errors.ExecutionInputTooLarge,
            errors.ServiceDraining,
        ),
    )
    async def start_process(caller: Caller, environment_id: EnvironmentPath, body: StartProcess) -> ProcessAnswer:
        """Start a command in the background of the environment.

        It lives until it ends by itself, is killed, or is older than its `timeout`, and at the longest as long as the
        environment. All that it starts ends with it. A command that cannot be started is an answer with the status
        `not_started`.
        """
        return ProcessAnswer.of(await processes.start(caller, environment_id, body.wanted()))


def _add_reading_routes(api: Api, processes: Processes) -> None:
    @api.operation("GET", _PROCESSES, tag=_TAG, errors=_OF_ENVIRONMENT)
    async def list_processes(caller: Caller, environment_id: EnvironmentPath) -> ProcessesAnswer:
        """List the environment's processes, newest first; those that have ended for ten minutes by default."""
        rows = await processes.list(caller, environment_id)
        return ProcessesAnswer(processes=list(map(ProcessAnswer.of, rows)))

    @api.operation("GET", _PROCESS, tag=_TAG, errors=_SEES)
    async def get_process(caller: Caller, environment_id: EnvironmentPath, process_id: ProcessPath) -> ProcessAnswer:
        """Get one process."""
        return ProcessAnswer.of(await processes.get(caller, environment_id, process_id))

    @api.operation("GET", f"{_PROCESS}/output", tag=_TAG, errors=_SEES)
    async def read_process_output(
        caller: Caller, environment_id: EnvironmentPath, process_id: ProcessPath, query: Annotated[ReadProcess, Query()]
    ) -> ProcessOutputAnswer:
        """Read what is kept of the output: the newest part, from a `position` on where one is given."""
        position = _position("after", query.after)
        return ProcessOutputAnswer.of(await processes.output(caller, environment_id, process_id, position))

    @api.operation("POST", f"{_PROCESS}/wait", tag=_TAG, audit=Audit.READ, errors=_SEES)
    async def wait_for_process(
        caller: Caller, environment_id: EnvironmentPath, process_id: ProcessPath, body: WaitForProcess, request: Request
    ) -> ProcessAnswer:
        """Wait until the process has ended, or the time is up; answers how it is then."""
        work = processes.wait(caller, environment_id, process_id, body.timeout)
        return ProcessAnswer.of(await while_connected(request.receive, work))


def _add_following_route(api: Api, processes: Processes, streams: Streams) -> None:
    @api.operation(
        "GET",
        f"{_PROCESS}/events",
        tag=_TAG,
        errors=(*_SEES, errors.TooManyStreams),
        extra={"responses": {"200": _STREAM}, "parameters": [LAST_EVENT_ID_PARAMETER]},
    )
    async def follow_process(
        caller: Caller,
        environment_id: EnvironmentPath,
        process_id: ProcessPath,
        request: Request,
        query: Annotated[ReadProcess, Query()],
    ) -> EventStream:
        """Follow a process: `started`, what it has written and writes, `finished`. It does not wait for who follows."""
        header = exchange_of(request.scope).headers.get(LAST_EVENT_ID)
        name, text = ("Last-Event-ID", header.decode("latin-1")) if header else ("after", query.after)
        events = await processes.follow(caller, environment_id, process_id, _position(name, text))
        return EventStream(streams, caller.user_id, RenderedProcessEvents(events))


def _add_input_route(api: Api, processes: Processes, most_bytes: int) -> None:
    @api.operation(
        "POST",
        f"{_PROCESS}/stdin",
        tag=_TAG,
        audit=Audit.SUMMED,
        errors=(
            *_TELLS,
            errors.ProcessTakesNoInput,
            errors.PayloadTooLarge,
            errors.UnsupportedMediaType,
            errors.InvalidRequest,
        ),
        extra=_BODY,
    )
    async def write_process_input(
        caller: Caller,
        environment_id: EnvironmentPath,
        process_id: ProcessPath,
        query: Annotated[FeedProcess, Query()],
        request: Request,
    ) -> InputAnswer:
        """Give the process input: the body as it is. With `eof` there is no more after it.

        Waits for a process that does not read, for half a minute by default; `taken` says how much it was given.
        """
        data = await read_body(request.scope, request.receive, most_bytes)
        work = processes.feed(caller, environment_id, process_id, data, ends=query.eof == "true")
        return InputAnswer(taken=await while_connected(request.receive, work))


def _add_telling_routes(api: Api, processes: Processes) -> None:
    @api.operation(
        "POST",
        f"{_PROCESS}/resize",
        tag=_TAG,
        audit=Audit.SUMMED,
        errors=(*_TELLS, errors.ProcessHasNoTerminal, errors.ProcessStuck),
    )
    async def resize_process(
        caller: Caller, environment_id: EnvironmentPath, process_id: ProcessPath, body: TerminalWanted
    ) -> ProcessAnswer:
        """Give the terminal of the process another size."""
        return ProcessAnswer.of(await processes.resize(caller, environment_id, process_id, body.size()))

    @api.operation("POST", f"{_PROCESS}/signal", tag=_TAG, audit=Audit.OFTEN, errors=(*_TELLS, errors.ProcessStuck))
    async def signal_process(
        caller: Caller, environment_id: EnvironmentPath, process_id: ProcessPath, body: SignalProcess
    ) -> ProcessAnswer:
        """Send a signal to the process's group; where it has a terminal, to the group in the foreground."""
        return ProcessAnswer.of(await processes.signal(caller, environment_id, process_id, body.number()))

    @api.operation("DELETE", _PROCESS, tag=_TAG, errors=(*_SEES, errors.Forbidden))
    async def kill_process(caller: Caller, environment_id: EnvironmentPath, process_id: ProcessPath) -> ProcessAnswer:
        """Kill the process and all that it has started, whatever they ignore; one that has ended is as good."""
        return ProcessAnswer.of(await processes.kill(caller, environment_id, process_id))


def _position(name: str, text: str | None) -> ProcessPosition | None:
    if not text:
        return None
    position = parse_position(text)
    if position is None:
        refuse_field(name, "is not a position in this output; send one as it came, or none")
    return position
