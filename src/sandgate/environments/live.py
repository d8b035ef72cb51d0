"""What the service keeps in memory of a live environment, so that executing needs no database."""

import asyncio
from dataclasses import dataclass, replace

from sandgate.core.environment import Environment
from sandgate.core.errors import EnvironmentNotRunning
from sandgate.core.execution import Execution
from sandgate.core.ids import EnvironmentId, ExecutionId
from sandgate.core.states import EnvironmentStatus
from sandgate.sandbox.base import Mask, RunningExecution, Sandbox


@dataclass(frozen=True, slots=True)
class Ending:
    """To what an environment comes, and why. ``deleted`` when its owner asked for it."""

    status: EnvironmentStatus
    reason: str | None
    deleted: bool = False


def not_running(environment_id: EnvironmentId, status: EnvironmentStatus, reason: str | None) -> EnvironmentNotRunning:
    """The refusal of work on an environment that has ended or is ending."""
    why = f" ({reason})" if reason else ""
    return EnvironmentNotRunning(
        f"Environment {environment_id} is {status}{why}; create another one",
        {"status": status.value, "status_reason": reason},
    )


class ActiveExecution:
    """An execution that has not been recorded as ended yet."""

    __slots__ = ("handle", "mask", "recorded", "row", "sandbox")

    def __init__(self, row: Execution, handle: RunningExecution, sandbox: Sandbox, mask: Mask | None = None) -> None:
        self.row = row
        self.handle = handle
        self.sandbox = sandbox
        self.mask = mask
        # Made when somebody wants to wait for the record, which is rare.
        self.recorded: asyncio.Future[Execution] | None = None


class LiveEnvironment:
    """The newest row, the sandbox or the promise of one, and what runs in it."""

    def __init__(self, row: Environment, deadline: float, sandbox: Sandbox | None = None) -> None:
        self.row = row
        self.deadline = deadline
        self.running: dict[ExecutionId, ActiveExecution] = {}
        self.making: asyncio.Task[None] | None = None
        self.asked_runtime = False
        self.is_written = True
        self.ending: Ending | None = None
        self.ended: asyncio.Task[None] | None = None
        # Serialises changes, each of which reads the row, waits, and writes it.
        self.changing = asyncio.Lock()
        self._sandbox = sandbox
        self._made: asyncio.Future[None] | None = None
        self._idle: asyncio.Future[None] | None = None

    @property
    def environment_id(self) -> EnvironmentId:
        """Its identifier."""
        return self.row.environment_id

    def get_sandbox(self) -> Sandbox | None:
        """The sandbox, None while it is being made. Raises ``EnvironmentNotRunning`` once the end has begun."""
        if self.ending is not None:
            raise self.refusal()
        return self._sandbox

    def refusal(self) -> EnvironmentNotRunning:
        """What to answer to whoever wants to use it while it ends."""
        ending = self.ending
        status, reason = (ending.status, ending.reason) if ending else (self.row.status, self.row.status_reason)
        return not_running(self.environment_id, status, reason)

    async def wait_for_sandbox(self) -> Sandbox:
        """The sandbox, waited for while it is being made. Raises ``EnvironmentNotRunning`` when it comes to none."""
        while True:
            sandbox = self.get_sandbox()
            if sandbox is not None:
                return sandbox
            if self._made is None:
                self._made = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._made)

    def become_running(self, sandbox: Sandbox) -> None:
        """The sandbox has been made."""
        self._sandbox = sandbox
        self.row = replace(self.row, status=EnvironmentStatus.RUNNING)
        self._wake()

    def begin_ending(self, ending: Ending) -> None:
        """From now on no work is taken; whoever waits for the sandbox is refused."""
        self.ending = ending
        self._wake()

    def add(self, active: ActiveExecution) -> None:
        """Keep an execution until it is recorded."""
        self.running[active.row.execution_id] = active

    def remove(self, active: ActiveExecution) -> None:
        """The execution is recorded, or never will be."""
        self.running.pop(active.row.execution_id, None)
        if self._idle is not None and not self.running:
            self._idle.set_result(None)
            self._idle = None

    def cancel_all(self) -> None:
        """Kill whatever runs, the youngest first, so that what is queued does not start in the place of the killed."""
        for active in reversed(list(self.running.values())):
            active.handle.cancel()

    async def wait_until_idle(self) -> None:
        """Wait until no execution is left that has not been recorded."""
        while self.running:
            if self._idle is None:
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)

    def _wake(self) -> None:
        if self._made is not None and not self._made.done():
            self._made.set_result(None)
        self._made = None
