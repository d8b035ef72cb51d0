"""The use cases of processes in the background of environments.

They live in the memory of this process and in their sandboxes: there is no row of them. Their ends are known for some
time; what runs when this process dies is taken up by the next one, from what was left with the runtime.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sandgate.core.command import Order, OrderKind, TerminalSize
from sandgate.core.errors import (
    ExecutionInputTooLarge,
    ProcessNotFound,
    SandboxFailed,
    ServiceDraining,
    TooManyProcesses,
)
from sandgate.core.execution import Surroundings
from sandgate.core.ids import EnvironmentId, ProcessId, UserId, make_process_id
from sandgate.core.principal import Principal
from sandgate.core.process import Process, ProcessStatus, read_note
from sandgate.environments.active_process import TAG, ActiveProcess, Kept
from sandgate.environments.live import LiveEnvironment
from sandgate.environments.process_output import ProcessEvents, ProcessPosition, read_kept
from sandgate.environments.staying import Parts, StayingService
from sandgate.telemetry.log import get_logger

# Whoever starts one waits so long for it to run; a sandbox that is busy may take longer.
_BEGIN_WAIT_S = 10.0
# A kill that is not confirmed by then is on its way.
_KILL_WAIT_S = 10.0
# Of one user. Each holds its output.
_MOST_ENDED = 64
_SHELLS = ("bash", "sh")

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NewProcess:
    """What a caller asks for: the words of a command, or a line for a shell."""

    argv: Sequence[str] = ()
    line: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    takes_input: bool = False
    terminal: TerminalSize | None = None
    timeout_s: float | None = None
    name: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def commands(self) -> Sequence[Sequence[str]]:
        """What is tried, in that order."""
        if self.line is None:
            return [list(self.argv)]
        return [[shell, "-c", self.line] for shell in _SHELLS]

    def measure(self) -> int:
        """How many bytes it is, in UTF-8."""
        texts = [*self.argv, self.line or "", self.cwd or "", *self.env, *self.env.values()]
        return sum(len(text.encode("utf-8", "replace")) for text in texts)


class ProcessService(StayingService):
    """Processes of live environments, for whoever may see or change them."""

    def __init__(self, *parts: *Parts) -> None:
        super().__init__(*parts)
        self._all: OrderedDict[ProcessId, ActiveProcess] = OrderedDict()
        self._live_of_environment: Counter[EnvironmentId] = Counter()
        self._live_of_user: Counter[UserId] = Counter()
        self.is_draining = False

    @property
    def live_count(self) -> int:
        """How many have not ended."""
        return self._live_of_user.total()

    async def start(self, caller: Principal, environment_id: EnvironmentId, wanted: NewProcess) -> Process:
        """Start one, and wait a while until it runs; one that cannot be started is an answer.

        Raises ``EnvironmentNotFound``, ``EnvironmentNotRunning``, ``Forbidden``, ``TooManyProcesses``,
        ``ExecutionInputTooLarge``, ``TooManyExecutions``, ``ServiceDraining``.
        """
        active = await self.begin(caller, environment_id, wanted)
        await active.wait_begun(_BEGIN_WAIT_S)
        return active.row

    async def begin(self, caller: Principal, environment_id: EnvironmentId, wanted: NewProcess) -> ActiveProcess:
        """As :meth:`start`, without waiting until it runs."""
        live = await self._lookup.get_live(caller, environment_id)
        if self.is_draining:
            raise ServiceDraining("The service is stopping and takes no new work; ask again when it is back")
        limit = self._settings.max_execution_input_bytes
        if wanted.measure() > limit:
            raise ExecutionInputTooLarge(f"The command is longer than {limit} bytes", {"limit_bytes": limit})
        self._check_room(live)
        row = self._new_row(live, wanted)
        self._count(row, 1)
        try:
            around = await self._variables.surround(caller, live.row, Surroundings(env=wanted.env))
            env = {} if around is None else dict(around.env)
            active = ActiveProcess(row, wanted.commands, env, self._settings)
            sandbox = live.get_sandbox() or await live.wait_for_sandbox()
            active.handle = sandbox.execute(active.request)
        except SandboxFailed as fault:
            self._count(row, -1)
            self._lifecycle.sandbox_ended(live.environment_id, fault.message)
            raise live.refusal() from fault
        except BaseException:
            self._count(row, -1)
            raise
        self._keep(active)
        return active

    def _new_row(self, live: LiveEnvironment, wanted: NewProcess) -> Process:
        return Process(
            process_id=make_process_id(),
            environment_id=live.environment_id,
            owner_id=live.row.owner_id,
            status=ProcessStatus.STARTING,
            words=list(wanted.argv) if wanted.line is None else [wanted.line],
            started_at=self._clock.now(),
            name=wanted.name,
            metadata=dict(wanted.metadata),
            cwd=wanted.cwd,
            takes_input=wanted.takes_input,
            terminal=wanted.terminal,
            timeout_s=wanted.timeout_s,
        )

    def _check_room(self, live: LiveEnvironment) -> None:
        """Raises ``TooManyProcesses``."""
        places = (
            (
                "environment",
                self._live_of_environment[live.environment_id],
                self._settings.max_processes_per_environment,
            ),
            ("user", self._live_of_user[live.row.owner_id], self._settings.max_processes_per_user),
        )
        for scope, count, limit in places:
            if count >= limit:
                raise TooManyProcesses(
                    f"The {scope} has {count} background processes, and {limit} is the most; end one",
                    {"limit": limit, "scope": scope},
                )

    def _count(self, row: Process, change: int) -> None:
        self._live_of_environment[row.environment_id] += change
        self._live_of_user[row.owner_id] += change
        if not self._live_of_environment[row.environment_id]:
            del self._live_of_environment[row.environment_id]
        if not self._live_of_user[row.owner_id]:
            del self._live_of_user[row.owner_id]

    def _keep(self, active: ActiveProcess) -> None:
        self._all[active.row.process_id] = active
        self._tasks.spawn(self._conclude(active), f"conclude {active.row.process_id}")

    async def _conclude(self, active: ActiveProcess) -> None:
        termination = await active.handle.wait()
        active.conclude(termination, self._clock.now())
        row = active.row
        self._runtime.let_go(active.request.tag or "")
        self._count(row, -1)
        _log.info("process ended", process_id=row.process_id, status=row.status.value)
        self._forget_old(row.owner_id)
        forget = self._all.pop
        asyncio.get_running_loop().call_later(self._settings.process_retention_s, forget, row.process_id, None)

    def _forget_old(self, owner_id: UserId) -> None:
        ended = [key for key, each in self._all.items() if each.row.owner_id == owner_id and not each.row.is_live]
        for key in ended[:-_MOST_ENDED]:
            del self._all[key]

    async def adopt(self) -> int:
        """Take up what an earlier process left running; how many."""
        count = 0
        for _tag, live, note in self._left(TAG):
            row = read_note(note)
            if row is None:
                continue
            active = ActiveProcess(row, [list(row.words)], {}, self._settings)
            resumed = await self._runtime.resume(active.request, live.row.limits)
            if resumed is None:
                continue
            active.handle = resumed.execution
            self._count(row, 1)
            self._keep(active)
            count += 1
        return count

    async def find(
        self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId, *, changes: bool = False
    ) -> ActiveProcess:
        """One that the caller may change, or at least see. Raises ``ProcessNotFound``, and what ``get_live`` does."""
        if changes:
            await self._lookup.get_awake(caller, environment_id)
        else:
            await self._lookup.get_live(caller, environment_id, changes=False)
        active = self._all.get(process_id)
        if active is None or active.row.environment_id != environment_id:
            raise ProcessNotFound(f"Environment {environment_id} has no process {process_id}, or it ended long ago")
        return active

    async def list(self, caller: Principal, environment_id: EnvironmentId) -> Sequence[Process]:
        """All of an environment, newest first, with those that have ended lately."""
        await self._lookup.get_live(caller, environment_id, changes=False)
        rows = [active.row for active in self._all.values() if active.row.environment_id == environment_id]
        return sorted(rows, key=lambda row: row.process_id, reverse=True)

    async def get(self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId) -> Process:
        """One."""
        return (await self.find(caller, environment_id, process_id)).row

    async def output(
        self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId, position: ProcessPosition | None
    ) -> Kept:
        """What is kept of its output behind a position."""
        return read_kept(await self.find(caller, environment_id, process_id), position)

    async def follow(
        self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId, position: ProcessPosition | None
    ) -> ProcessEvents:
        """What it writes, from a position on, as it comes."""
        return ProcessEvents(await self.find(caller, environment_id, process_id), position)

    async def feed(
        self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId, data: bytes, *, ends: bool
    ) -> int:
        """Give it input, and tell it that there is no more; how many bytes were taken before the time was up.

        Raises ``ProcessNotRunning``, ``ProcessTakesNoInput``.
        """
        active = await self.find(caller, environment_id, process_id, changes=True)
        active.check_takes_input()
        taken = await active.talk.feed(data, self._settings.process_input_timeout_s)
        if ends and taken == len(data):
            active.talk.end_input()
        return taken

    async def resize(
        self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId, size: TerminalSize
    ) -> Process:
        """Give its terminal another size. Raises ``ProcessNotRunning``, ``ProcessHasNoTerminal``, ``ProcessStuck``."""
        active = await self.find(caller, environment_id, process_id, changes=True)
        active.resize(size)
        return active.row

    async def signal(
        self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId, number: int
    ) -> Process:
        """Signal its group, or the one in the foreground of its terminal. Raises as :meth:`resize`."""
        active = await self.find(caller, environment_id, process_id, changes=True)
        active.tell(Order(OrderKind.SIGNAL, number=number))
        return active.row

    async def wait(
        self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId, limit_s: float
    ) -> Process:
        """As it is when it has ended, or the time is up."""
        return await (await self.find(caller, environment_id, process_id)).wait(limit_s)

    async def kill(self, caller: Principal, environment_id: EnvironmentId, process_id: ProcessId) -> Process:
        """End it and all that it has started; one that has ended is as good. Answers when nothing of it runs."""
        active = await self.find(caller, environment_id, process_id, changes=True)
        active.handle.cancel()
        return await active.wait(_KILL_WAIT_S)
