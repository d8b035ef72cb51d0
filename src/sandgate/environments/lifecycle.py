"""Makes and ends the sandboxes of live environments; the one place that decides how an environment ends."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from sandgate.core.audit import AuditSink, by_service
from sandgate.core.clock import Clock
from sandgate.core.environment import Environment
from sandgate.core.errors import LauncherUnavailable, MechanismFault
from sandgate.core.ids import EnvironmentId
from sandgate.core.states import EnvironmentStatus, Isolation, sources_of
from sandgate.environments.deadlines import Deadlines
from sandgate.environments.live import Ending, LiveEnvironment
from sandgate.environments.quota import Quota
from sandgate.environments.tasks import TaskOwner
from sandgate.sandbox.base import Runtime, Sandbox, SandboxSpec
from sandgate.store.base import EnvironmentStore
from sandgate.telemetry.log import get_logger

# How many sandboxes of a class are asked for at once. More would not be made sooner, and the first would wait for the
# last; those of another class take a hundred times as long, or a hundredth.
_MADE_AT_ONCE = 8
# How long a caller waits for an end before it is told to ask again; the end itself is never given up.
_END_WAIT_S = 30.0
# How long a service that stops waits for all ends: shorter than whoever stops it, also when the database is away.
_END_ALL_WAIT_S = 12.0
# How long the end waits for a sandbox that is being made, and for executions to be recorded.
_MAKING_WAIT_S = 30.0
_RECORDS_WAIT_S = 5.0
_LONGEST_RETRY_DELAY_S = 5.0

# What the runtime says of a sandbox whose lifetime was over.
_EXPIRED = "expired"

_log = get_logger(__name__)


class Lifecycle:
    """The live environments of this process, by id, and the tasks that make and end their sandboxes."""

    def __init__(
        self,
        store: EnvironmentStore,
        runtime: Runtime,
        clock: Clock,
        quota: Quota,
        tasks: TaskOwner,
        audit: AuditSink | None = None,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._clock = clock
        self._quota = quota
        self._tasks = tasks
        self._audit = audit
        self._slots = {isolation: asyncio.Semaphore(_MADE_AT_ONCE) for isolation in Isolation}
        self._live: dict[EnvironmentId, LiveEnvironment] = {}
        self._deadlines: Deadlines[EnvironmentId] = Deadlines(clock, self._expire)

    @property
    def deadlines(self) -> Deadlines[EnvironmentId]:
        """When each live environment is to be gone."""
        return self._deadlines

    def find(self, environment_id: EnvironmentId) -> LiveEnvironment | None:
        """The live environment with this id."""
        return self._live.get(environment_id)

    def all(self) -> Iterable[LiveEnvironment]:
        """Every live environment."""
        return tuple(self._live.values())

    def launch(self, row: Environment) -> LiveEnvironment:
        """Keep a new environment, whose place in the quota is taken, and begin to make its sandbox."""
        live = self._keep(row, self._clock.monotonic() + row.timeout_s, None)
        live.is_written = False
        live.making = self._tasks.spawn(self._make(live), f"make {row.environment_id}")
        return live

    def adopt(self, row: Environment, sandbox: Sandbox | None) -> None:
        """Keep an environment that an earlier process made; without a sandbox, or too old, it ends at once."""
        remaining_s = (row.expires_at - self._clock.now()).total_seconds()
        live = self._keep(row, self._clock.monotonic() + max(remaining_s, 0.0), sandbox)
        self._quota.count(row.owner_id, row.limits.memory_bytes)
        if remaining_s <= 0:
            self._expire(row.environment_id)
        elif sandbox is None:
            lost = "the service lost its sandbox while it was not running"
            self.end(live, Ending(EnvironmentStatus.FAILED, lost))
        elif sandbox.failure is not None:
            self.sandbox_ended(row.environment_id, sandbox.failure)
        elif row.status is EnvironmentStatus.CREATING:
            live.become_running(sandbox)
            live.making = self._tasks.spawn(self._note_running(live), f"note {row.environment_id}")

    def prolong(self, live: LiveEnvironment, timeout_s: int) -> None:
        """Count the lifetime anew from now."""
        live.deadline = self._clock.monotonic() + timeout_s
        self._deadlines.set(live.environment_id, live.deadline)

    def sandbox_ended(self, environment_id: EnvironmentId, reason: str) -> None:
        """The runtime's word that a sandbox ended unasked."""
        live = self._live.get(environment_id)
        if live is None:
            return
        if reason == _EXPIRED:
            self._expire(environment_id)
        else:
            self.end(live, Ending(EnvironmentStatus.FAILED, reason))

    def end(self, live: LiveEnvironment, ending: Ending) -> "asyncio.Task[None]":
        """Begin the end, unless another one has begun: the first cause wins. The task is done when all is written."""
        if live.ended is None:
            live.begin_ending(ending)
            self._deadlines.discard(live.environment_id)
            live.ended = self._tasks.spawn(self._end(live, ending), f"end {live.environment_id}")
        return live.ended

    async def wait_for_end(self, live: LiveEnvironment, ending: Ending) -> Ending:
        """End it and wait until nothing of it runs; answers the ending that won. Raises ``LauncherUnavailable``."""
        task = self.end(live, ending)
        done, _ = await asyncio.wait({task}, timeout=_END_WAIT_S)
        if not done:
            raise LauncherUnavailable(
                f"Environment {live.environment_id} is still being ended after {_END_WAIT_S:.0f} s; ask again later"
            )
        return live.ending or ending

    async def end_all(self, ending: Ending) -> None:
        """End every live environment and wait, for a while, until that is written."""
        tasks = [self.end(live, ending) for live in self.all()]
        if tasks:
            await asyncio.wait(tasks, timeout=_END_ALL_WAIT_S)

    def _keep(self, row: Environment, deadline: float, sandbox: Sandbox | None) -> LiveEnvironment:
        live = LiveEnvironment(row, deadline, sandbox)
        self._live[row.environment_id] = live
        self._deadlines.set(row.environment_id, deadline)
        return live

    def _expire(self, environment_id: EnvironmentId) -> None:
        live = self._live.get(environment_id)
        if live is not None:
            reason = f"its lifetime of {live.row.timeout_s} s is over"
            self.end(live, Ending(EnvironmentStatus.EXPIRED, reason))

    async def _make(self, live: LiveEnvironment) -> None:
        async with self._slots[live.row.isolation]:
            live.asked_runtime = True
            sandbox = await self._create(live)
        if sandbox is None or live.ending is not None:
            return
        live.become_running(sandbox)
        await self._note_running(live)

    async def _create(self, live: LiveEnvironment) -> Sandbox | None:
        """The sandbox, or None once it is settled that the environment failed."""
        row = live.row
        remaining_s = live.deadline - self._clock.monotonic()
        spec = SandboxSpec(row.environment_id, row.template, row.limits, max(remaining_s, 0.0), row.isolation)
        try:
            return await self._runtime.create(spec)
        except MechanismFault as fault:
            self.end(live, Ending(EnvironmentStatus.FAILED, f"its sandbox could not be made: {fault.message}"))
        except Exception:
            _log.exception("making a sandbox failed in an unforeseen way", environment_id=row.environment_id)
            self.end(live, Ending(EnvironmentStatus.FAILED, "its sandbox could not be made: internal error"))
        return None

    async def _note_running(self, live: LiveEnvironment) -> None:
        """Write that the sandbox is there. Nothing depends on the write: a later ending may start from either."""
        try:
            await self._store.transition(
                live.environment_id,
                EnvironmentStatus.RUNNING,
                expected={EnvironmentStatus.CREATING},
                at=self._clock.now(),
            )
        except MechanismFault as fault:
            _log.warning("status not written", environment_id=live.environment_id, reason=fault.message)

    async def _end(self, live: LiveEnvironment, ending: Ending) -> None:
        environment_id = live.environment_id
        await self._stop_making(live)
        if ending.status is EnvironmentStatus.TERMINATED:
            live.cancel_all()
        await self._insist(lambda: self._runtime.destroy(environment_id), f"destroy {environment_id}")
        await self._let_records_be_written(live)
        ended_at = self._clock.now()
        await self._insist(
            lambda: self._store.transition(
                environment_id,
                ending.status,
                expected=sources_of(ending.status),
                at=ended_at,
                reason=ending.reason,
                deleted=ending.deleted,
            ),
            f"write the end of {environment_id}",
        )
        live.row = replace(live.row, status=ending.status, status_reason=ending.reason, ended_at=ended_at)
        del self._live[environment_id]
        self._quota.give_back(live.row.owner_id, live.row.limits.memory_bytes)
        _log.info("environment ended", environment_id=environment_id, status=ending.status.value, reason=ending.reason)
        if self._audit is not None and not ending.deleted:
            # What a caller deleted is told of with the request.
            details = {"owner_id": live.row.owner_id, "status": ending.status.value, "reason": ending.reason}
            self._audit.note(by_service("end_environment", ended_at, environment_id, details))

    async def _stop_making(self, live: LiveEnvironment) -> None:
        """See to it that the runtime is not at work on it any more.

        A runtime that was asked is left to answer, because a cancelled request may still be carried out.
        """
        making = live.making
        if making is None:
            return
        if live.asked_runtime:
            await asyncio.wait({making}, timeout=_MAKING_WAIT_S)
        making.cancel()
        await asyncio.wait({making})

    @staticmethod
    async def _let_records_be_written(live: LiveEnvironment) -> None:
        try:
            async with asyncio.timeout(_RECORDS_WAIT_S):
                await live.wait_until_idle()
        except TimeoutError:
            _log.warning("executions not recorded in time", environment_id=live.environment_id)

    @staticmethod
    async def _insist(action: Callable[[], Awaitable[object]], what: str) -> None:
        """Do it, again and again while the mechanism is broken: an end that was begun is never left half done."""
        delay_s = 0.1
        while True:
            try:
                await action()
            except MechanismFault as fault:
                _log.warning("will try again", what=what, reason=fault.message, delay_s=delay_s)
            else:
                return
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_RETRY_DELAY_S)
