"""An answer that a server in an environment gives, or a web socket that it speaks over."""

from starlette.types import Receive, Scope, Send

from sandgate.core.principal import Principal
from sandgate.environments.base import Ports
from sandgate.http.exchange import exchange_of
from sandgate.http.port_headers import PortTarget
from sandgate.http.port_passage import Check, Passage, PortLimits
from sandgate.http.port_socket import SocketPassage, is_socket
from sandgate.http.upgraded import find_upgrade


class PortAnswer:
    """``check`` is awaited now and then, and ends the answer by raising ``NotAuthenticated`` or ``NotFound``."""

    def __init__(
        self, ports: Ports, caller: Principal, target: PortTarget, limits: PortLimits, check: Check | None = None
    ) -> None:
        self._ports = ports
        self._caller = caller
        self._target = target
        self._limits = limits
        self._check = check

    async def serve(self, scope: Scope, receive: Receive, send: Send, check: Check | None = None) -> None:
        """Pass the request in and the answer out. Raises what ``Ports.connect`` does, ``PortAnswerInvalid``,
        ``PortTimeout``, ``ClientGone``; and ``AnswerCutOff`` in the middle of an answer.
        """
        target = self._target
        async with self._ports.connect(self._caller, target.environment_id, target.port) as stream:
            passage = Passage(stream, target, self._limits, exchange_of(scope))
            upgrade = find_upgrade(scope)
            if upgrade is not None and is_socket(exchange_of(scope)):
                await SocketPassage(passage).run(scope, receive, send, upgrade, self._check or check)
            else:
                await passage.run(scope, receive, send, self._check or check)
