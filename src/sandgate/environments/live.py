"""What the service keeps in memory of a live environment, so that executing needs no database."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sandgate.core.environment import Environment
from sandgate.core.errors import EnvironmentNotRunning
from sandgate.core.execution import Execution, ExecutionRequest
from sandgate.core.ids import EnvironmentId, ExecutionId
from sandgate.core.output_tap import OutputTap
from sandgate.core.states import EnvironmentStatus
from sandgate.environments.journal import OutputJournal
from sandgate.environments.live_sessions import LiveSessions
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

    __slots__ = ("handle", "has_ended", "journal", "mask", "recorded", "removal", "row", "sandbox", "tap")

    def __init__(
        self,
        row: Execution,
        handle: RunningExecution,
        sandbox: Sandbox,
        mask: Mask | None = None,
        journal: OutputJournal | None = None,
        tap: OutputTap | None = None,
        removal: ExecutionRequest | None = None,
    ) -> None:
        self.row = row
        # What removes what it leaves if it is killed.
        self.removal = removal
        self.handle = handle
        self.sandbox = sandbox
        self.mask = mask
        # What others may see of its output while it runs: all, or what is kept of it, or nothing.
        self.journal = journal
        self.tap = tap
        # It writes nothing more, and its record is being written.
        self.has_ended = False
        # Made when somebody wants to wait for the record, which is rare.
        self.recorded: asyncio.Future[Execution] | None = None

    @property
    def can_be_seen(self) -> bool:
        """Whether its output may be shown while it runs."""
        return self.journal is not None or self.tap is not None

    def open_journal(self) -> OutputJournal:
        """What it writes, for those who may see it: of an execution that somebody else waits for, what is kept."""
        if self.recorded is None:
            # Made before the end, which looks for it.
            self.recorded = asyncio.get_running_loop().create_future()
        if self.journal is None and self.tap is not None:
            self.journal = journal = OutputJournal(sys.maxsize, 0, 0)
            journal.begin()
            self.tap.listen(journal.add)
            if self.has_ended:
                journal.end()
        if self.journal is None:
            raise RuntimeError("the output of this execution is not for others")
        return self.journal

    def end_output(self) -> None:
        """Nothing more will be written; who follows it is told so, and who begins to later."""
        self.has_ended = True
        if self.journal is not None:
            self.journal.end()

    def on_record(self, act: Callable[[], None]) -> None:
        """Act once the record is written, or cannot be."""
        if self.recorded is None:
            self.recorded = asyncio.get_running_loop().create_future()
        self.recorded.add_done_callback(lambda _recorded: act())

    async def wait_for_record(self) -> Execution:
        """The record, once it is written. Raises ``StoreUnavailable`` when it could not be."""
        if self.recorded is None:
            self.recorded = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self.recorded)


class LiveEnvironment:
    """The newest row, the sandbox or the promise of one, and what runs in it."""

    def __init__(
        self,
        row: Environment,
        deadline: float,
        sandbox: Sandbox | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.row = row
        self.deadline = deadline
        self.running: dict[ExecutionId, ActiveExecution] = {}
        self.sessions = LiveSessions(row.environment_id)
        self.making: asyncio.Task[None] | None = None
        self.asked_runtime = False
        self.is_written = True
        self.ending: Ending | None = None
        self.ended: asyncio.Task[None] | None = None
        # Serialises changes, each of which reads the row, waits, and writes it.
        self.changing = asyncio.Lock()
        # Serialises what lets it stand still and go on, and the writes of that.
        self.standing = asyncio.Lock()
        self.writing = asyncio.Lock()
        # When somebody asked for its sandbox last, or something that ran in it ended.
        self.used_at = 0.0
        self._users = 0
        self._monotonic = monotonic
        self._sandbox = sandbox
        self._asleep: Sandbox | None = None
        self._resume: Callable[[], Awaitable[object]] | None = None
        self._made: asyncio.Future[None] | None = None
        self._idle: asyncio.Future[None] | None = None

    @property
    def environment_id(self) -> EnvironmentId:
        """Its identifier."""
        return self.row.environment_id

    def get_sandbox(self) -> Sandbox | None:
        """The sandbox, to be used; None while it is being made, or paused.

        Raises ``EnvironmentNotRunning`` once the end has begun.
        """
        if self.ending is not None:
            raise self.refusal()
        self.used_at = self._monotonic()
        return self._sandbox

    @property
    def is_paused(self) -> bool:
        """Whether it stands still, or is about to."""
        return self._asleep is not None

    @property
    def asleep(self) -> Sandbox | None:
        """The sandbox of one that is paused."""
        return self._asleep

    @property
    def is_in_use(self) -> bool:
        """Whether something runs in it, or waits to."""
        if self.running or self._users:
            return True
        return self._sandbox is not None and not self._sandbox.is_idle

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """It is used from outside during the block, whatever runs in it."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self.used_at = self._monotonic()

    def fall_asleep(self, resume: Callable[[], Awaitable[object]]) -> None:
        """From now on whoever wants its sandbox waits until ``resume`` is done, which wakes it."""
        self._asleep, self._sandbox = self._sandbox, None
        self._resume = resume

    def wake(self) -> None:
        """Its sandbox may be used again."""
        if self._asleep is not None:
            self._sandbox, self._asleep = self._asleep, None
        self._wake()

    def refusal(self) -> EnvironmentNotRunning:
        """What to answer to whoever wants to use it while it ends."""
        ending = self.ending
        status, reason = (ending.status, ending.reason) if ending else (self.row.status, self.row.status_reason)
        return not_running(self.environment_id, status, reason)

    async def wait_for_sandbox(self) -> Sandbox:
        """The sandbox, to be used; waited for while it is being made, resumed when it is paused.

        Raises ``EnvironmentNotRunning`` when it comes to none, ``LauncherUnavailable`` when it cannot be resumed.
        """
        while True:
            sandbox = self.get_sandbox()
            if sandbox is not None:
                return sandbox
            if self._asleep is not None and self._resume is not None:
                await self._resume()
            else:
                await self._wait()

    async def wait_for_made(self) -> Sandbox:
        """The sandbox as it is, perhaps paused; waited for while it is being made.

        Raises ``EnvironmentNotRunning`` when it comes to none.
        """
        while True:
            if self.ending is not None:
                raise self.refusal()
            sandbox = self._sandbox or self._asleep
            if sandbox is not None:
                return sandbox
            await self._wait()

    async def _wait(self) -> None:
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
        self.used_at = self._monotonic()
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
