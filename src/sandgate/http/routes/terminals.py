"""Terminals of environments over web sockets."""

from collections.abc import Collection
from typing import Annotated, Any
from urllib.parse import urlencode

from starlette.requests import Request

from sandgate.core import errors
from sandgate.core.errors import ProcessHasNoTerminal
from sandgate.core.principal import Principal
from sandgate.environments.active_process import ActiveProcess
from sandgate.environments.process_cases import Processes
from sandgate.environments.process_output import parse_position
from sandgate.http.api import Api
from sandgate.http.audit import Audit
from sandgate.http.authentication import Caller
from sandgate.http.bodies import refuse_field
from sandgate.http.exchange import exchange_of
from sandgate.http.marks import Query
from sandgate.http.models.processes import AskForTerminal, OpenTerminal, TerminalAnswer
from sandgate.http.paths import EnvironmentPath, parse_process_id
from sandgate.http.socket_tickets import LIFETIME_S, SocketTickets
from sandgate.http.streaming import Streams
from sandgate.http.terminal import PROTOCOL, Terminal
from sandgate.http.web_socket import WebSocketAnswer, check_upgrade, offered_protocols

_TERMINAL = "/api/v1/sandbox/environments/{environment_id}/terminal"
_TAG = "processes"
_REFUSALS = (
    errors.EnvironmentNotFound,
    errors.EnvironmentNotRunning,
    errors.EnvironmentElsewhere,
    errors.Forbidden,
    errors.ProcessNotFound,
    errors.ProcessHasNoTerminal,
    errors.TooManyProcesses,
    errors.TooManyExecutions,
    errors.ServiceDraining,
)
_SWITCHED: dict[str, Any] = {
    "responses": {"101": {"description": f"The connection speaks web sockets, with the subprotocol `{PROTOCOL}`."}}
}


def add_terminal_routes(
    api: Api, processes: Processes, streams: Streams, tickets: SocketTickets, origins: Collection[str]
) -> None:
    """Declare the operations. Pages of ``origins`` may open terminals, beside the server's own."""
    _add_ticket_route(api, processes, tickets)

    @api.operation(
        "GET",
        _TERMINAL,
        tag=_TAG,
        status=101,
        audit=Audit.CHANGE,
        opens_socket=True,
        errors=(
            *_REFUSALS,
            errors.UpgradeRequired,
            errors.MalformedRequest,
            errors.ForeignOrigin,
            errors.TooManyStreams,
        ),
        extra=_SWITCHED,
    )
    async def open_terminal(
        caller: Caller, environment_id: EnvironmentPath, query: Annotated[OpenTerminal, Query()], request: Request
    ) -> WebSocketAnswer:
        """Open a terminal: a web socket for xterm.js and its like.

        With `process_id` it is that of a process, which goes on when the socket is closed; without, that of a new
        shell, which is killed then. A browser proves who it is by `ticket`, or by a subprotocol `bearer.<token>`.
        """
        upgrade = check_upgrade(request.scope, origins)
        streams.check_room(caller.user_id)
        position = None if query.after is None else parse_position(query.after)
        if query.after is not None and position is None:
            refuse_field("after", "is not a position in this output; send one as it came, or none")
        if query.process_id is None:
            active = await processes.begin(caller, environment_id, query.wanted())
        else:
            active = await _find(processes, caller, environment_id, query.process_id)
        terminal = Terminal(active, position, is_own=query.process_id is None)
        protocol = PROTOCOL if PROTOCOL in offered_protocols(exchange_of(request.scope)) else None
        return WebSocketAnswer(streams, caller.user_id, upgrade, terminal, protocol=protocol)


def _add_ticket_route(api: Api, processes: Processes, tickets: SocketTickets) -> None:
    @api.operation("POST", _TERMINAL, tag=_TAG, status=201, errors=(*_REFUSALS, errors.ExecutionInputTooLarge))
    async def ask_for_terminal(
        caller: Caller, environment_id: EnvironmentPath, body: AskForTerminal, request: Request
    ) -> TerminalAnswer:
        """Ask for the address of a terminal that a browser can open: good once, for half a minute.

        It is that of the process named, or of a new one, by default a shell. The process goes on when the browser goes.
        """
        if body.process_id is None:
            active = await processes.begin(caller, environment_id, body.wanted())
        else:
            active = await _find(processes, caller, environment_id, body.process_id)
        path = _TERMINAL.format(environment_id=environment_id)
        process_id = active.row.process_id
        ticket = tickets.issue(exchange_of(request.scope), caller, path, process_id)
        address = f"{path}?{urlencode({'process_id': process_id, 'ticket': ticket})}"
        return TerminalAnswer(process_id=process_id, url=address, ticket=ticket, expires_in=int(LIFETIME_S))


async def _find(processes: Processes, caller: Principal, environment_id: EnvironmentPath, text: str) -> ActiveProcess:
    """A process with a terminal. Raises ``ProcessNotFound``, ``ProcessHasNoTerminal``."""
    active = await processes.find(caller, environment_id, parse_process_id(text), changes=True)
    if active.row.terminal is None:
        raise ProcessHasNoTerminal(f"Process {active.row.process_id} was started without a terminal (`pty`)")
    return active
