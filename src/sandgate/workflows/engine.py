"""Works on runs: one engine a process, on one event loop.

What a run has come to is a row before anything else knows of it; what is running is known in memory. Events of a run
are taken one batch after the other: advance, write, start what follows.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sandgate.core.clock import Clock
from sandgate.core.errors import ExpressionError, InvalidDefinition, StoreUnavailable
from sandgate.core.execution import ErrorReport
from sandgate.core.ids import RunId
from sandgate.core.run import Run, StepResult, StepRun, StepStatus
from sandgate.store.base import RunChange, Store
from sandgate.telemetry.log import get_logger
from sandgate.workflows.advance import advance
from sandgate.workflows.attempts import failure, prepare, run_attempt
from sandgate.workflows.base import StepSandboxes
from sandgate.workflows.definition import parse_definition
from sandgate.workflows.events import AttemptEnded, CancelAsked, Changes, Decided, Event, TakenOver
from sandgate.workflows.live import LiveRun
from sandgate.workflows.state import Graph

LEASE_S = 10.0
# How often a lease is renewed within its length.
_RENEWALS = 5
_MOST_CLAIMED = 10_000
# Longer than a write may be under way after its caller has given up.
_DOUBTFUL_S = 60.0
_LONGEST_RETRY_DELAY_S = 2.0
_CANCELLED = StepResult(StepStatus.CANCELLED, "cancelled")
_LAPSED = StepResult(StepStatus.FAILED, "lost", error=ErrorReport("Lost", "the database was away for too long", ""))

_log = get_logger(__name__)


class Engine:
    """``start`` comes first and ``stop`` last. ``on_fault`` is told of a bug in a background task.

    ``owner`` names the process in leases: the same after a restart, another for every other process.
    """

    def __init__(
        self,
        store: Store,
        sandboxes: StepSandboxes,
        clock: Clock,
        owner: str,
        *,
        most_steps: int = 16,
        lease_s: float = LEASE_S,
        on_fault: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._clock = clock
        self._owner = owner
        self._slots = asyncio.Semaphore(most_steps)
        self._lease_s = lease_s
        self._on_fault = on_fault
        self._beginning: set[RunId] = set()
        self._doubtful_until = clock.monotonic()
        self._renewed_at = clock.monotonic()
        self._live: dict[RunId, LiveRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def live_count(self) -> int:
        """How many runs this process works on."""
        return len(self._live)

    def _lease_until(self) -> datetime:
        return self._clock.now() + timedelta(seconds=self._lease_s)

    def find(self, run_id: RunId) -> LiveRun | None:
        """A run that this process works on."""
        return self._live.get(run_id)

    async def start(self) -> None:
        """Take over what an earlier process left, and from then on what others leave. Raises ``StoreUnavailable``."""
        await self._claim(own=True)
        self._spawn(self._patrol_for_ever(), "patrol of runs")

    async def stop(self) -> None:
        """Kill what runs, without a word in the records: the next start takes it up as lost."""
        self._stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for live in self._live.values():
            live.close()
        await self._sandboxes.close()

    async def begin(self, run: Run, graph: Graph) -> LiveRun | None:
        """Make a new run durable and start what can be; None when its workflow has been deleted.

        When nobody knows whether it became durable, because the caller went away or the answer got lost, the patrol
        finds it.
        """
        run = replace(run, lease_owner=self._owner, lease_until=self._lease_until())
        live = LiveRun(run, graph)
        changes = advance(graph, live.state(), [], self._clock.now())
        self._expect(live, changes)
        self._beginning.add(run.run_id)
        try:
            if not await self._store.runs.insert(RunChange(changes.run, changes.steps, changes.history)):
                return None
            self._live[run.run_id] = live
        except BaseException:
            self._doubt()
            raise
        finally:
            self._beginning.discard(run.run_id)
        self._follow(live, changes)
        return live

    def post(self, live: LiveRun, event: Event | None = None) -> None:
        """Let something happen to a run; None: time has passed."""
        if event is not None:
            live.events.append(event)
        live.due = True
        if live.pump is None and not self._stopping:
            live.pump = self._spawn(self._pump(live), f"advance {live.run.run_id}")

    def cancel(self, live: LiveRun, who: str) -> None:
        """Kill what runs of it, and let it tidy up."""
        self.post(live, CancelAsked(who))

    def decide(self, live: LiveRun, word: Decided) -> None:
        """Approve or reject a step."""
        self.post(live, word)

    def look(self) -> None:
        """Look at the time, which may have been set meanwhile: let go on what is due."""
        now = self._clock.now()
        for live in list(self._live.values()):
            if live.run.wake_at is not None and live.run.wake_at <= now:
                self.post(live)

    # One run

    async def _take_over(self, run: Run) -> None:
        raw = await self._store.workflows.find_definition(run.workflow_id, run.workflow_version)
        try:
            graph = Graph(parse_definition(raw))
        except InvalidDefinition as problem:
            _log.error("run cannot be taken over", run_id=run.run_id, reason=problem.message)
            return
        live = LiveRun(run, graph)
        rows = await self._store.runs.list_steps(run.run_id, with_output=False)
        live.steps = {row.key: row for row in rows}
        self._live[run.run_id] = live
        _log.info("run taken over", run_id=run.run_id, fence=run.fence)
        self.post(live, TakenOver())

    async def _pump(self, live: LiveRun) -> None:
        """Take what has happened until nothing is left; whatever comes meanwhile is the next batch."""
        try:
            while live.due and live.run.run_id in self._live:
                events, live.events, live.due = live.events, [], False
                changes = advance(live.graph, live.state(), events, self._clock.now())
                self._expect(live, changes)
                if not await self._write(live, changes):
                    self._drop(live)
                    self._doubt()
                    return
                self._follow(live, changes)
        finally:
            live.pump = None

    def _expect(self, live: LiveRun, changes: Changes) -> None:
        """The next sandbox is got ready while the result of the step before becomes durable."""
        for row in changes.start:
            self._sandboxes.expect(live.graph.steps[row.step].config.get("template"))

    async def _write(self, live: LiveRun, changes: Changes) -> bool:
        """Until it is written; False when the run is no longer this process's."""
        if changes.run == live.run and not changes.steps:
            return True
        delay_s = 0.05
        while True:
            try:
                change = RunChange(changes.run, changes.steps, changes.history)
                return await self._store.runs.apply(change) or await self._has_ended_so(changes)
            except StoreUnavailable as fault:
                _log.warning("run not written yet", run_id=live.run.run_id, reason=fault.message)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_RETRY_DELAY_S)

    async def _has_ended_so(self, changes: Changes) -> bool:
        """Whether the end of a run was written before, by a call whose answer got lost."""
        if changes.run.is_live:
            return False
        found = await self._store.runs.find(changes.run.run_id)
        return found is not None and (found.status, found.fence, found.events) == (
            changes.run.status,
            changes.run.fence,
            changes.run.events,
        )

    def _follow(self, live: LiveRun, changes: Changes) -> None:
        """What is written holds: start, kill, wake up, or be done."""
        live.take(changes)
        if not live.run.is_live:
            self._drop(live)
            return
        for key in changes.kill:
            task = live.attempts.get(key)
            if task is not None:
                task.cancel()
        for row in changes.start:
            live.attempts[row.key] = self._spawn(self._attempt(live, row), f"{row.run_id} {row.step}")
        self._set_timer(live)

    def _set_timer(self, live: LiveRun) -> None:
        if live.timer is not None:
            live.timer.cancel()
            live.timer = None
        if live.run.wake_at is not None:
            delay_s = max(0.0, (live.run.wake_at - self._clock.now()).total_seconds())
            # Bounded, because the wall clock may be set meanwhile.
            live.timer = asyncio.get_running_loop().call_later(min(delay_s, 60.0), self._ring, live)

    def _ring(self, live: LiveRun) -> None:
        live.timer = None
        if live.run.run_id in self._live:
            due = live.run.wake_at is not None and live.run.wake_at <= self._clock.now()
            if due:
                self.post(live)
            else:
                self._set_timer(live)

    async def _attempt(self, live: LiveRun, row: StepRun) -> None:
        try:
            async with self._slots:
                result = await self._execute(live, row)
        except asyncio.CancelledError:
            if self._stopping or live.closed:
                raise
            result = _LAPSED if live.lapsed else _CANCELLED
        if live.attempts.get(row.key) is asyncio.current_task():
            del live.attempts[row.key]
        self.post(live, AttemptEnded(row.key, row.attempt, result))

    async def _execute(self, live: LiveRun, row: StepRun) -> StepResult:
        try:
            data = prepare(live.graph, live.state(), row)
        except ExpressionError as problem:
            return failure("ExpressionError", problem.message)
        return await run_attempt(self._sandboxes, live.graph.steps[row.step], data)

    def _drop(self, live: LiveRun) -> None:
        """Nothing more is to be done here: it has ended, or is somebody else's."""
        self._live.pop(live.run.run_id, None)
        live.close()

    # All runs

    async def _patrol_for_ever(self) -> None:
        """Hold the leases, and take what others let go."""
        while True:
            await asyncio.sleep(self._lease_s / _RENEWALS)
            await self.patrol()

    async def patrol(self) -> None:
        """Do that once."""
        try:
            await self._renew()
            await self._claim(own=False)
        except (StoreUnavailable, TimeoutError) as fault:
            _log.warning("leases not renewed", reason=str(fault))
            self._watch_leases()
        self.look()

    def _watch_leases(self) -> None:
        """Kill what runs without a lease: another process may have begun it again."""
        if self._clock.monotonic() - self._renewed_at <= self._lease_s:
            return
        for live in self._live.values():
            live.lapse()

    async def _claim(self, *, own: bool) -> None:
        now, until = self._clock.now(), self._lease_until()
        async with asyncio.timeout(None if own else self._lease_s):
            claimed = await self._store.runs.claim(self._owner, now, until, _MOST_CLAIMED, own=own)
        for run in claimed:
            live = self._live.get(run.run_id)
            if live is not None and live.run.fence == run.fence - 1:
                # Its lease had run out, and nobody else was quicker: it goes on as it is.
                live.run = replace(live.run, fence=run.fence, lease_until=run.lease_until)
                continue
            if live is not None:
                self._drop(live)
            await self._take_over(run)

    async def _renew(self) -> None:
        """Give up whatever another process has taken; take up what is this one's without its knowing."""
        held, asked_at = frozenset(self._live), self._clock.monotonic()
        if not held and asked_at > self._doubtful_until:
            self._renewed_at = asked_at
            return
        # Whoever waits for longer does not see the lease run out. What is given up here may be done all the same.
        async with asyncio.timeout(self._lease_s / 2):
            kept = await self._store.runs.renew(self._owner, self._lease_until())
        self._renewed_at = asked_at
        for live in self._live.values():
            live.lapsed = False
        for run_id in held - kept:
            lost = self._live.get(run_id)
            if lost is not None and lost.run.is_live and lost.pump is None:
                _log.warning("run was taken by another process", run_id=run_id)
                self._drop(lost)
        for run_id in kept - held:
            await self._take_up(run_id)
        await self._sandboxes.hold()

    def _doubt(self) -> None:
        """There may be a run that has this process's lease without its knowing."""
        self._doubtful_until = self._clock.monotonic() + _DOUBTFUL_S

    async def _take_up(self, run_id: RunId) -> None:
        """Work on a run that has this process's lease, but whose beginning or whose fate got lost on the way."""
        if run_id in self._live or run_id in self._beginning:
            return
        run = await self._store.runs.find(run_id)
        if run is not None and run.is_live and run.lease_owner == self._owner and run_id not in self._live:
            await self._take_over(run)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            _log.error("background task failed", task=task.get_name(), exc_info=fault)
            if self._on_fault is not None:
                self._on_fault(fault)
