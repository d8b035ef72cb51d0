"""The use cases of processes in the background of environments, as the HTTP layer sees them."""

from collections.abc import Sequence
from typing import Protocol

from sandgate.core.command import TerminalSize
from sandgate.core.ids import EnvironmentId, ProcessId
from sandgate.core.principal import Principal
from sandgate.core.process import Process
from sandgate.environments.active_process import ActiveProcess, Kept
from sandgate.environments.process_output import ProcessEvents, ProcessPosition
from sandgate.environments.processes import NewProcess


class Processes(Protocol):
    """Processes in the background of environments. Every method raises what :class:`Environments` does, and
    ``EnvironmentNotRunning``; those that are given an id ``ProcessNotFound``.
    """

    async def start(self, caller: Principal, environment_id: EnvironmentId, wanted: NewProcess) -> Process:
        """Start one, and wait a while until it runs. Raises ``TooManyProcesses``, ``ExecutionInputTooLarge``,
        ``TooManyExecutions``, ``ServiceDraining``.
        """
        ...

    async def begin(self, caller: Principal, environment_id: EnvironmentId, wanted: NewProcess) -> ActiveProcess:
        """As :meth:`start`, without waiting until it runs."""
        ...

    async def find(
        self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId, *, changes: bool = False
    ) -> ActiveProcess:
        """One that the caller may change, or at least see, to be talked to."""
        ...

    async def list(self, caller: Principal, environment_id: EnvironmentId) -> Sequence[Process]:
        """All of an environment, newest first, with those that have ended lately."""
        ...

    async def get(self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId) -> Process:
        """One."""
        ...

    async def output(
        self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId, position: ProcessPosition | None
    ) -> Kept:
        """What is kept of its output behind a position."""
        ...

    async def follow(
        self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId, position: ProcessPosition | None
    ) -> ProcessEvents:
        """What it writes, from a position on, as it comes."""
        ...

    async def feed(
        self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId, data: bytes, *, ends: bool
    ) -> int:
        """Give it input, and tell it that there is no more; how many bytes were taken before the time was up.

        Raises ``ProcessNotRunning``, ``ProcessTakesNoInput``.
        """
        ...

    async def resize(
        self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId, size: TerminalSize
    ) -> Process:
        """Give its terminal another size. Raises ``ProcessNotRunning``, ``ProcessHasNoTerminal``, ``ProcessStuck``."""
        ...

    async def signal(
        self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId, number: int
    ) -> Process:
        """Signal its group, or the one in the foreground of its terminal. Raises as :meth:`resize`."""
        ...

    async def wait(
        self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId, limit_s: float
    ) -> Process:
        """As it is when it has ended, or the time is up."""
        ...

    async def kill(self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId) -> Process:
        """End it and all that it has started; one that has ended is as good."""
        ...
