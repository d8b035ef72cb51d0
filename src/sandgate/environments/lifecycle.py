"""Makes and ends the sandboxes of live environments; the one place that decides how an environment ends."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Set
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from sandgate.core.audit import AuditSink, by_service
from sandgate.core.clock import Clock
from sandgate.core.environment import Environment, EnvironmentChange
from sandgate.core.errors import LauncherUnavailable, MechanismFault, SandgateError, TemplateNotFound
from sandgate.core.fair_slots import FairSlots
from sandgate.core.ids import EnvironmentId, UserId
from sandgate.core.states import EnvironmentStatus, Isolation, OnTimeout, sources_of
from sandgate.core.template import Layer
from sandgate.environments.base import Templates
from sandgate.environments.deadlines import Deadlines
from sandgate.environments.live import Ending, LiveEnvironment
from sandgate.environments.noting import RunningNotes
from sandgate.environments.pausing import Pausing
from sandgate.environments.quota import Quota
from sandgate.environments.tasks import TaskOwner
from sandgate.sandbox.base import Runtime, Sandbox, SandboxSpec
from sandgate.store.base import EnvironmentStore
from sandgate.telemetry.log import get_logger

# How many sandboxes of a class are asked for at once, and of one user. More would not be made sooner, and the first
# would wait for the last; those of another class take a hundred times as long, or a hundredth. Users take turns, and
# one whose templates hang leaves room for others.
_MADE_AT_ONCE = 10
_MADE_AT_ONCE_FOR_ONE = 8
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


class Filling(Protocol):
    """Lays out files in environments before anybody uses them."""

    async def fill(self, row: Environment, sandbox: Sandbox) -> None:
        """Lay out what it begins with. Raises ``MechanismFault``."""
        ...

    def forget(self, environment_id: EnvironmentId) -> None:
        """It has ended; perhaps before it was filled."""
        ...


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
        most_paused_s: int = 86_400,
        templates: Templates | None = None,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._clock = clock
        self._quota = quota
        self._tasks = tasks
        self._audit = audit
        self._templates = templates
        self._slots = {isolation: FairSlots(_MADE_AT_ONCE, _MADE_AT_ONCE_FOR_ONE) for isolation in Isolation}
        self._notes = RunningNotes(store, tasks)
        self._live: dict[EnvironmentId, LiveEnvironment] = {}
        # Set before anything begins with files.
        self.filling: Filling | None = None
        self._deadlines: Deadlines[EnvironmentId] = Deadlines(clock, self._expire)
        self.pausing = Pausing(store, runtime, clock, tasks, self._deadlines, self.sandbox_ended, most_paused_s)

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

    def owners(self) -> Set[UserId]:
        """Everybody who has a live environment here."""
        return {live.row.owner_id for live in self._live.values() if live.ended is None}

    def end_all_of(self, owner_id: UserId, reason: str) -> int:
        """Begin to end the live environments of a user here; answers how many."""
        found = [live for live in self.all() if live.row.owner_id == owner_id and live.ended is None]
        for live in found:
            self.end(live, Ending(EnvironmentStatus.TERMINATED, reason))
        return len(found)

    async def note(self) -> None:
        """Bring the rows of what runs up to date."""
        await self._notes.flush()

    def launch(self, row: Environment, may_begin: asyncio.Event | None = None) -> LiveEnvironment:
        """Keep a new environment, whose place in the quota is taken, and begin to make its sandbox, perhaps later."""
        live = self._keep(row, self._clock.monotonic() + row.timeout_s, None)
        live.is_written = False
        live.making = self._tasks.spawn(self._make(live, may_begin), f"make {row.environment_id}")
        return live

    def adopt(self, row: Environment, sandbox: Sandbox | None) -> None:
        """Keep an environment that an earlier process made; without a sandbox, or too old, it ends at once."""
        remaining_s = (row.expires_at - self._clock.now()).total_seconds()
        live = self._keep(row, self._clock.monotonic() + max(remaining_s, 0.0), sandbox)
        self._quota.count(row)
        if remaining_s <= 0 and (sandbox is None or row.status is EnvironmentStatus.PAUSED):
            self._end_expired(live)
        elif remaining_s <= 0:
            self._expire(row.environment_id)
        elif sandbox is None:
            lost = "the service lost its sandbox while it was not running"
            self.end(live, Ending(EnvironmentStatus.FAILED, lost))
        elif sandbox.failure is not None:
            self.sandbox_ended(row.environment_id, sandbox.failure)
        elif row.status is EnvironmentStatus.PAUSED:
            self.pausing.keep_paused(live)
        elif row.status is EnvironmentStatus.CREATING and row.is_made_in_steps:
            what = "its files were laid out" if row.begins_with_files else "it had its volumes"
            lost = f"the service was started again before {what}"
            self.end(live, Ending(EnvironmentStatus.FAILED, lost))
        elif row.status is EnvironmentStatus.CREATING:
            live.become_running(sandbox)
            self._notes.add(live)
            self.pausing.watch(live)
        else:
            self.pausing.watch(live)

    async def extend(self, live: LiveEnvironment, change: EnvironmentChange) -> None:
        """Let its sandbox live for as long as it may before and after a change that is not written yet.

        Of one that is paused, that is done when it is resumed. Raises ``EnvironmentNotRunning``, ``MechanismFault``s.
        """
        if change.timeout_s is None and change.on_timeout is None:
            return
        sandbox = await live.wait_for_made()
        if not live.is_paused:
            left_s = self._left_s(live) if change.timeout_s is None else change.timeout_s
            changed = live.row.changed(change, self._clock.now())
            await sandbox.extend(max(self.pausing.wall_s(row, left_s) for row in (live.row, changed)))

    async def take_up(self, live: LiveEnvironment, change: EnvironmentChange) -> None:
        """Its row has changed: count its lifetime and the time without use anew, where they are others."""
        if live.is_paused:
            return
        if change.timeout_s is not None:
            live.deadline = self._clock.monotonic() + change.timeout_s
            self._deadlines.set(live.environment_id, live.deadline)
        if change.idle_timeout_s is not None and live.row.status is EnvironmentStatus.RUNNING:
            self.pausing.watch(live)
        if change.on_timeout is OnTimeout.DELETE:
            # It ends here whatever comes of this; the launcher's wall stands for the case that nobody is here any more.
            sandbox = await live.wait_for_made()
            with suppress(MechanismFault):
                await sandbox.extend(self._left_s(live))

    def _left_s(self, live: LiveEnvironment) -> float:
        return max(0.0, live.deadline - self._clock.monotonic())

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
            self.pausing.forget(live)
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
        self._notes.close()
        tasks = [self.end(live, ending) for live in self.all()]
        if tasks:
            await asyncio.wait(tasks, timeout=_END_ALL_WAIT_S)

    def _keep(self, row: Environment, deadline: float, sandbox: Sandbox | None) -> LiveEnvironment:
        live = LiveEnvironment(row, deadline, sandbox, self._clock.monotonic)
        self._live[row.environment_id] = live
        self._deadlines.set(row.environment_id, deadline)
        return live

    def _expire(self, environment_id: EnvironmentId) -> None:
        live = self._live.get(environment_id)
        if live is None:
            return
        if live.is_paused:
            self.end(live, Ending(EnvironmentStatus.EXPIRED, "it was paused for as long as it may be"))
        elif live.row.on_timeout is OnTimeout.PAUSE and live.ending is None:
            self._tasks.spawn(self._pause_at_timeout(live), f"pause {environment_id}")
        else:
            self._end_expired(live)

    def _end_expired(self, live: LiveEnvironment) -> None:
        self.end(live, Ending(EnvironmentStatus.EXPIRED, f"its lifetime of {live.row.timeout_s} s is over"))

    async def _pause_at_timeout(self, live: LiveEnvironment) -> None:
        try:
            await self.pausing.pause(live, at_timeout=True)
        except SandgateError as fault:
            if not live.is_paused:
                _log.warning("not paused", environment_id=live.environment_id, reason=fault.message)
                self._end_expired(live)

    async def _make(self, live: LiveEnvironment, may_begin: asyncio.Event | None) -> None:
        if may_begin is not None:
            await may_begin.wait()
        async with self._slots[live.row.isolation].place(live.row.owner_id):
            live.asked_runtime = True
            sandbox = await self._create(live)
        # What comes now may be given up at any time.
        live.asked_runtime = False
        if sandbox is None or live.ending is not None:
            return
        if live.row.is_made_in_steps and not await self._equip(live, sandbox):
            return
        if live.row.is_made_in_steps:
            # Written before anybody uses it: one that is ``creating`` when the service starts has not got all of them.
            name = live.environment_id
            await self._insist(lambda: self._store.note_running([name]), f"note {name}")
            if live.ending is not None:
                return
        live.become_running(sandbox)
        self._notes.add(live)
        self.pausing.watch(live)

    async def _create(self, live: LiveEnvironment) -> Sandbox | None:
        """The sandbox, or None once it is settled that the environment failed."""
        row = live.row
        lifetime_s = self.pausing.wall_s(row, self._left_s(live))
        try:
            key, layer = self._find_template(row)
            spec = SandboxSpec(row.environment_id, key, row.limits, lifetime_s, row.isolation, layer)
            sandbox = await self._runtime.create(spec)
            if row.network is not None:
                await sandbox.network.allow(row.network, row.owner_id)
        except (MechanismFault, TemplateNotFound) as fault:
            self.end(live, Ending(EnvironmentStatus.FAILED, f"its sandbox could not be made: {fault.message}"))
        except Exception:
            _log.exception("making a sandbox failed in an unforeseen way", environment_id=row.environment_id)
            self.end(live, Ending(EnvironmentStatus.FAILED, "its sandbox could not be made: internal error"))
        else:
            return sandbox
        return None

    async def _equip(self, live: LiveEnvironment, sandbox: Sandbox) -> bool:
        """Lay out what it begins with, and give it its volumes; False once it is settled that it failed.

        Others' sandboxes are made meanwhile: files take as long as they are large.
        """
        row = live.row
        try:
            if row.begins_with_files and self.filling is not None:
                await self.filling.fill(row, sandbox)
            if row.volumes:
                # Behind the files of a snapshot, which take away what was there before.
                await self._runtime.volumes.mount(row.environment_id, row.volumes)
        except MechanismFault as fault:
            self.end(live, Ending(EnvironmentStatus.FAILED, f"its sandbox could not be made: {fault.message}"))
            return False
        except Exception:
            # As for making it: what is wrong with the files of one is no reason to end the others.
            _log.exception("equipping a sandbox failed in an unforeseen way", environment_id=row.environment_id)
            self.end(live, Ending(EnvironmentStatus.FAILED, "its sandbox could not be made: internal error"))
            return False
        return True

    def _find_template(self, row: Environment) -> tuple[str, Layer | None]:
        """What the runtime knows its template by. Raises ``TemplateNotFound`` for one that was deleted meanwhile."""
        if self._templates is None:
            return row.template, None
        template = self._templates.get(row.template, row.owner_id)
        return template.key, template.layer

    async def _end(self, live: LiveEnvironment, ending: Ending) -> None:
        environment_id = live.environment_id
        await self._stop_making(live)
        if self.filling is not None:
            self.filling.forget(environment_id)
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
        self._quota.give_back(live.row)
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
