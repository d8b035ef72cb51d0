"""Works on runs: one engine a process, on one event loop.

What a run has come to is a row before anything else knows of it; what is running is known in memory. Events of a run
are taken one batch after the other: advance, write, start what follows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from sandgate.core.clock import Clock
from sandgate.core.errors import InvalidDefinition, StoreUnavailable
from sandgate.core.idempotency import Keep
from sandgate.core.ids import RunId
from sandgate.core.run import Run, StepResult, StepRun, StepStatus
from sandgate.store.base import NoteKind, RunNote, Store, VersionGone
from sandgate.telemetry.log import get_logger
from sandgate.workflows.advance import advance
from sandgate.workflows.base import RunInsert, SecretSource, StepEnvironments, StepSandboxes
from sandgate.workflows.children import Children
from sandgate.workflows.collecting import Collecting
from sandgate.workflows.condemned import condemn
from sandgate.workflows.events import AttemptEnded, CancelAsked, Changes, Decided, Event, TakenOver
from sandgate.workflows.graphs import Graphs
from sandgate.workflows.leases import LeaseKeeper
from sandgate.workflows.live import LiveRun, load_live, started_numbers
from sandgate.workflows.live_output import LiveOutput
from sandgate.workflows.reopening import reopen
from sandgate.workflows.requests import HttpSteps
from sandgate.workflows.signals import event_of
from sandgate.workflows.state import Graph
from sandgate.workflows.timers import RunTimers
from sandgate.workflows.turns import Turns
from sandgate.workflows.watch import RunWatch
from sandgate.workflows.work import StepWork
from sandgate.workflows.workspaces import Workspaces
from sandgate.workflows.writing import RunWriter, change_of

LEASE_S = 10.0
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
        most_steps_of_one: int = 16,
        most_runs: int = 1000,
        most_depth: int = 8,
        requests: HttpSteps | None = None,
        workspaces: Workspaces | None = None,
        environments: StepEnvironments | None = None,
        lease_s: float = LEASE_S,
        secrets: SecretSource | None = None,
        collecting: Collecting | None = None,
        on_fault: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._owner = owner
        self._on_fault = on_fault
        self._live: dict[RunId, LiveRun] = {}
        self._beginning: dict[RunId, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._writer = RunWriter(store.runs)
        self._leases = LeaseKeeper(store, clock, owner, lease_s, self)
        self._taking_signals: asyncio.Task[None] | None = None
        self._more_signals = False
        self._on_end: list[Callable[[Run], None]] = []
        self._on_schedules: list[Callable[[], None]] = []
        self.watch = RunWatch()
        self.graphs = Graphs(store.workflows)
        self._timers = RunTimers(clock, self.post)
        self._turns = Turns(store.runs, self.post)
        self._children = Children(self, store, clock, most_runs=most_runs, most_depth=most_depth)
        self._work = StepWork(
            sandboxes,
            self._children,
            most_steps=most_steps,
            most_steps_of_one=most_steps_of_one,
            requests=requests,
            workspaces=workspaces,
            environments=environments,
            secrets=secrets,
            collecting=collecting,
        )

    @property
    def is_stopping(self) -> bool:
        """Whether it lets go of its runs."""
        return self._stopping

    @property
    def live_count(self) -> int:
        """How many runs this process works on."""
        return len(self._live)

    def find(self, run_id: RunId) -> LiveRun | None:
        """A run that this process works on."""
        return self._live.get(run_id)

    async def start(self) -> None:
        """Take over what an earlier process left, and from then on what others leave. Raises ``StoreUnavailable``."""
        await self._leases.claim_own()
        await self._work.keep_only(self._live.values())
        self._spawn(self._leases.run(), "leases of runs")
        self._spawn(self._store.notes.listen(self.hear), "notes of other servers")

    async def stop(self) -> None:
        """Kill what runs, without a word in the records: the next start takes it up as lost, or another server."""
        self._stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for live in self._live.values():
            live.close()
        self.watch.wake()
        await self._work.close()
        await self._leases.release(self.held())

    def tell_of_ends(self, listener: Callable[[Run], None]) -> None:
        """Have the listener called with every run that is no longer worked on here."""
        self._on_end.append(listener)

    def tell_of_schedules(self, listener: Callable[[], None]) -> None:
        """Have the listener called when another process may have changed something that schedules wait for."""
        self._on_schedules.append(listener)

    async def begin(
        self, run: Run, graph: Graph, insert: RunInsert | None = None, *, under: Run | None = None
    ) -> LiveRun | None:
        """Make a new run durable and start what can be; None when its workflow has been deleted.

        Also None when the run that it is ``under`` is not this process's any more. ``insert`` writes the run together
        with something else; None when it answers that it did not. Raises ``VersionGone``.
        """
        run = replace(run, lease_owner=self._owner, templates=self._work.find_versions(run, graph))
        live = LiveRun(run, graph)
        changes = advance(graph, live.state(), [], self._clock.now())
        self._work.expect(live, changes)
        insert = insert or partial(self._store.runs.insert, under=under)
        return await self._take_up(live, changes, insert(change_of(changes), self._leases.lease_s))

    async def retry(
        self, run: Run, graph: Graph, who: str, from_step: str | None, keep: Keep[Run] | None = None
    ) -> LiveRun | None:
        """Make an ended run go on; None when it is live again already, or its workflow has been deleted."""
        live = await load_live(self._store.runs, replace(run, lease_owner=self._owner), graph)
        changes = reopen(graph, live.state(), who, from_step, self._clock.now())
        self._work.expect(live, changes)
        writing = self._store.runs.reopen(change_of(changes), self._leases.lease_s, keep and keep(changes.run))
        return await self._take_up(live, changes, writing)

    async def _take_up(self, live: LiveRun, changes: Changes, writing: Awaitable[bool]) -> LiveRun | None:
        run_id = changes.run.run_id
        self._beginning[run_id] = changes.run
        try:
            if not await writing:
                return None
        except VersionGone:
            raise  # Nothing has been written, and whoever asked begins anew.
        except BaseException:
            # It may have been written all the same, if the answer got lost or the caller left, and held by nobody.
            self._leases.stir(doubtful=True)
            raise
        finally:
            # Of two that are asked to make one run go on, either may come back first.
            if self._beginning.get(run_id) is changes.run:
                del self._beginning[run_id]
        if not self._live:
            self._leases.stir()
        self._live[run_id] = live
        self._follow(live, changes)
        if live.run.waits_for_slot:
            self._turns.add(live)
            self.post(live)
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
        now = self._clock.now()
        for live in list(self._live.values()):
            if live.run.wake_at is not None and live.run.wake_at <= now:
                self.post(live)
        self._turns.look()

    # What others do

    def hear(self, note: RunNote) -> None:
        """Take a note: of another process, or of this one to itself."""
        match note.kind:
            case NoteKind.SIGNAL if note.run_id in self._live:
                self._begin_to_take_signals()
            case NoteKind.CHANGED:
                self.watch.wake(note.run_id)
                self._turns.look()
            case NoteKind.FREE:
                self._leases.stir(free=True)
            case NoteKind.SCHEDULES:
                self._tell_of_schedules()
            case NoteKind.AGAIN:
                self._begin_to_take_signals()
                self._leases.stir(free=True)
                self.watch.wake()
                self._turns.look()
                self._tell_of_schedules()
            case _:
                return

    def _tell_of_schedules(self) -> None:
        for listener in self._on_schedules:
            listener()

    def _begin_to_take_signals(self) -> None:
        self._more_signals = True
        if self._taking_signals is None and not self._stopping:
            self._taking_signals = self._spawn(self._take_all_signals(), "signals to runs")

    async def _take_all_signals(self) -> None:
        try:
            while self._more_signals:
                self._more_signals = False
                await self.take_signals()
        except StoreUnavailable as fault:
            _log.warning("signals not read", reason=fault.message)
        finally:
            self._taking_signals = None

    async def take_signals(self) -> None:
        """Act on what is asked of the runs of this process. Raises ``StoreUnavailable``."""
        for signal in await self._store.signals.list_held(self._owner):
            live = self._live.get(signal.run_id)
            if live is not None and live.hear(signal.signal_id):
                self.post(live, event_of(signal))

    def held(self) -> Mapping[RunId, Run]:
        """The runs that this process works on, or is about to."""
        return {**self._beginning, **{run_id: live.run for run_id, live in self._live.items()}}

    async def hold(self) -> None:
        """Let what runs live on: nobody else has begun it."""
        await self._work.hold()

    def let_go(self, run_id: RunId) -> None:
        """Stop working on a run that is another process's, unless a write is about to notice that."""
        live = self._live.get(run_id)
        if live is not None and live.run.is_live and live.pump is None:
            _log.warning("run was taken by another process", run_id=run_id)
            self._drop(live)

    # One run

    async def take_over(self, run: Run) -> None:
        """Go on with a run that nobody works on any more. Raises ``StoreUnavailable``."""
        known = self._live.get(run.run_id)
        if known is not None and known.run.fence == run.fence - 1:
            # Its lease had run out here, and nobody else was quicker: it goes on as it is.
            known.run = replace(known.run, fence=run.fence, lease_until=run.lease_until)
            return
        if known is not None:
            self._drop(known)
        try:
            graph = await self.graphs.load(run.workflow_id, run.workflow_version)
        except InvalidDefinition as problem:
            _log.error("run cannot be taken over", run_id=run.run_id, reason=problem.message)
            rows = await self._store.runs.list_steps(run.run_id)
            await self._condemn(run, rows, "its definition cannot be read by this version of the server")
            return
        live = await load_live(self._store.runs, run, graph)
        self._live[run.run_id] = live
        _log.info("run taken over", run_id=run.run_id, fence=run.fence)
        kept = self._work.take_over(live)
        if kept:
            live.numbers = started_numbers(await self._store.runs.list_history(run.run_id))
        self._turns.add(live)
        self.post(live, TakenOver(kept))
        self._begin_to_take_signals()

    async def _pump(self, live: LiveRun) -> None:
        """Take what has happened until nothing is left; whatever comes meanwhile is the next batch."""
        try:
            while live.due and live.run.run_id in self._live:
                await self._go_on(live)
        except Exception:
            # A bug that one run meets must not end the server, which would meet it again after each start.
            _log.exception("run cannot be worked on", run_id=live.run.run_id)
            await self._condemn(live.run, live.steps.values(), "the server failed on it; its log says how")
            self._drop(live)
        finally:
            live.pump = None

    async def _go_on(self, live: LiveRun) -> None:
        events, live.events, live.due = live.events, [], False
        signals, live.signals = live.signals, []
        events = [*events, *await self._turns.ask(live, events, self._clock.now())]
        try:
            changes = advance(live.graph, live.state(), events, self._clock.now())
            self._work.expect(live, changes)
            written = await self._writer.write(live.run, changes, signals)
        finally:
            self._work.settle(live.run.run_id, events)
        if written:
            self._follow(live, changes)
        else:
            self._drop(live)

    async def _condemn(self, run: Run, steps: Iterable[StepRun], reason: str) -> None:
        """End a run that cannot be worked on; held by nobody else, should even that not be possible."""
        self._leases.keep_unfit(run.run_id)
        await self._writer.write(run, condemn(run, steps, reason, self._clock.now()), [])

    def _follow(self, live: LiveRun, changes: Changes) -> None:
        """What is written holds: start, kill, wake up, or be done."""
        live.take(changes)
        if not live.run.is_live:
            self._drop(live)
            return
        live.numbers.update(started_numbers(changes.history))
        for row in changes.start:
            if row.key in changes.kill and row.child_run_id is None:
                # It was to be started and is to be killed: it never began.
                self.post(live, AttemptEnded(row.key, row.attempt, _CANCELLED))
                continue
            live.outputs[row.key] = output = LiveOutput(live.numbers.get(row.key, changes.run.events), live.wake)
            live.attempts[row.key] = self._spawn(self._attempt(live, row, output), f"{row.run_id} {row.step}")
        for key in changes.kill:
            self._work.kill(live, key)
        self._timers.set(live)

    async def _attempt(self, live: LiveRun, row: StepRun, output: LiveOutput) -> None:
        try:
            result = await self._work.run(live, row, output)
        except asyncio.CancelledError:
            if self._stopping or live.closed:
                raise
            result = replace(_CANCELLED, stdout=output.whole("stdout"), stderr=output.whole("stderr"))
        finally:
            output.end()
            if live.outputs.get(row.key) is output:
                del live.outputs[row.key]
        if live.attempts.get(row.key) is asyncio.current_task():
            del live.attempts[row.key]
        self.post(live, AttemptEnded(row.key, row.attempt, result))

    def _drop(self, live: LiveRun) -> None:
        """Nothing more is to be done here: it has ended, or is somebody else's."""
        self._live.pop(live.run.run_id, None)
        live.close()
        self._turns.leave(live.run)
        self._work.release(live.run.run_id)
        self.watch.wake(live.run.run_id)
        for listener in self._on_end:
            listener(live.run)

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
