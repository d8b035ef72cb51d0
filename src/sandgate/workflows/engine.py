"""Works on runs: one engine a process, on one event loop.

What a run has come to is a row before anything else knows of it; what is running is known in memory. Events of a run
are taken one batch after the other: advance, write, start what follows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sandgate.core.clock import Clock
from sandgate.core.errors import ExpressionError, InvalidDefinition, StoreUnavailable
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
_PATROL_S = 2.0
_MOST_CLAIMED = 10_000
_LONGEST_RETRY_DELAY_S = 2.0
# Longer than a write that nobody waits for any more may still be on its way.
_DOUBT_S = 120.0
_CANCELLED = StepResult(StepStatus.CANCELLED, "cancelled")

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
        on_fault: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._clock = clock
        self._owner = owner
        self._slots = asyncio.Semaphore(most_steps)
        self._on_fault = on_fault
        self._live: dict[RunId, LiveRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._doubtful: dict[RunId, float] = {}
        self._on_end: list[Callable[[Run], None]] = []

    @property
    def live_count(self) -> int:
        """How many runs this process works on."""
        return len(self._live)

    def find(self, run_id: RunId) -> LiveRun | None:
        """A run that this process works on."""
        return self._live.get(run_id)

    async def start(self) -> None:
        """Take over what an earlier process left, and from then on what others leave. Raises ``StoreUnavailable``."""
        await self._claim(own=True)
        self._spawn(self._patrol(), "patrol of runs")

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

    def tell_of_ends(self, listener: Callable[[Run], None]) -> None:
        """Have the listener called with every run that is no longer worked on here."""
        self._on_end.append(listener)

    async def begin(
        self, run: Run, graph: Graph, insert: Callable[[RunChange], Awaitable[bool]] | None = None
    ) -> LiveRun | None:
        """Make a new run durable and start what can be; None when its workflow has been deleted.

        ``insert`` writes the run together with something else; None when it answers that it did not.
        """
        now = self._clock.now()
        run = replace(run, lease_owner=self._owner, lease_until=now + timedelta(seconds=LEASE_S))
        live = LiveRun(run, graph)
        changes = advance(graph, live.state(), [], now)
        for row in changes.start:
            self._sandboxes.expect(graph.steps[row.step].config.get("template"))
        try:
            inserted = await (insert or self._store.runs.insert)(RunChange(changes.run, changes.steps, changes.history))
        except StoreUnavailable:
            # It may be there all the same; then nobody else takes it, because its lease is this process's.
            self._doubtful[run.run_id] = self._clock.monotonic() + _DOUBT_S
            raise
        if not inserted:
            return None
        self._live[run.run_id] = live
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
        """Look at the time for every run."""
        for live in list(self._live.values()):
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
                return await self._store.runs.apply(RunChange(changes.run, changes.steps, changes.history))
            except StoreUnavailable as fault:
                _log.warning("run not written yet", run_id=live.run.run_id, reason=fault.message)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_RETRY_DELAY_S)

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
            result = _CANCELLED
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
        for listener in self._on_end:
            listener(live.run)

    # All runs

    async def _patrol(self) -> None:
        """Hold the leases, and take what others let go."""
        while True:
            await asyncio.sleep(_PATROL_S)
            try:
                await self._renew()
                await self._claim(own=False)
                await self._look_for_doubtful()
            except StoreUnavailable as fault:
                _log.warning("leases not renewed", reason=fault.message)
            self.look()

    async def _claim(self, *, own: bool) -> None:
        now = self._clock.now()
        until = now + timedelta(seconds=LEASE_S)
        for run in await self._store.runs.claim(self._owner, now, until, _MOST_CLAIMED, own=own):
            await self._take_over(run)

    async def _look_for_doubtful(self) -> None:
        """Go on with runs that were written although the database did not say so."""
        for run_id, until in tuple(self._doubtful.items()):
            run = await self._store.runs.find(run_id)
            if run is not None or self._clock.monotonic() > until:
                self._doubtful.pop(run_id, None)
            if run is not None and run.is_live and run.lease_owner == self._owner and run_id not in self._live:
                await self._take_over(run)

    async def _renew(self) -> None:
        """Give up whatever another process has taken."""
        held = frozenset(self._live)
        if not held:
            return
        kept = await self._store.runs.renew(self._owner, self._clock.now() + timedelta(seconds=LEASE_S))
        for run_id in held - kept:
            live = self._live.get(run_id)
            if live is not None and live.run.is_live and live.pump is None:
                _log.warning("run was taken by another process", run_id=run_id)
                self._drop(live)

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
