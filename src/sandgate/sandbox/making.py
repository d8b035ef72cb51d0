"""From what is asked of a sandbox to the execution that does it."""

from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import Limits
from sandgate.sandbox.command_execution import CommandExecution
from sandgate.sandbox.execution import ZygoteExecution
from sandgate.sandbox.inner_network import InnerNetwork
from sandgate.sandbox.kept_output import Keeping, Spool
from sandgate.sandbox.kernel_kills import KernelKills


class ExecutionMaker:
    """Of one sandbox."""

    def __init__(
        self,
        environment_id: EnvironmentId,
        kernel_kills: KernelKills,
        keeping: Keeping | None,
        network: InnerNetwork | None,
    ) -> None:
        self._environment_id = environment_id
        self._kernel_kills = kernel_kills
        self._keeping = keeping
        self._network = network

    def make(self, request: ExecutionRequest, limits: Limits) -> ZygoteExecution:
        """One that has not begun; what it writes is kept when it has a tag."""
        if self._network is not None:
            request = self._network.surround(request)
        if request.command is not None:
            if request.tag is not None and self._keeping is not None:
                self._keeping.note(self._environment_id, request.tag, request.command.note)
            return CommandExecution(request, limits, self._kernel_kills)
        spool = None
        if request.tag is not None and self._keeping is not None:
            spool = Spool(self._keeping, self._environment_id, request.tag)
        return ZygoteExecution(request, limits, self._kernel_kills, spool)
