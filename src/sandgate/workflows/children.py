"""Steps that are runs of their own: each attempt starts one run, however often it is begun anew, and waits for it."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol

from sandgate.core.clock import Clock
from sandgate.core.errors import InvalidDefinition, RequestRefused, StoreUnavailable
from sandgate.core.execution import ErrorReport
from sandgate.core.ids import RunId, WorkflowId
from sandgate.core.run import Run, RunStatus, StepResult, StepRun, StepStatus
from sandgate.core.trigger import TriggerType
from sandgate.store.base import Store, VersionGone
from sandgate.telemetry.log import get_logger
from sandgate.workflows.attempts import failure
from sandgate.workflows.contexts import attempt_context
from sandgate.workflows.events import CancelAsked
from sandgate.workflows.expressions import render
from sandgate.workflows.graphs import Graphs
from sandgate.workflows.inputs import check_inputs
from sandgate.workflows.live import LiveRun
from sandgate.workflows.names import SELF
from sandgate.workflows.new_runs import Source, new_run
from sandgate.workflows.one_by_one import OneByOne
from sandgate.workflows.signals import signal_of
from sandgate.workflows.state import Graph
from sandgate.workflows.watch import RunWatch

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_BY_PARENT = "the run above it"

_log = get_logger(__name__)


class _CannotStart(Exception):
    """Why there is no such run; never leaves this module."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.result = failure(name, text)


class Runs(Protocol):
    """What is needed of the engine."""

    @property
    def live_count(self) -> int:
        """How many runs this process works on."""
        ...

    def find(self, run_id: RunId) -> LiveRun | None:
        """A run that this process works on."""
        ...

    @property
    def graphs(self) -> Graphs:
        """Definitions that were read."""
        ...

    @property
    def watch(self) -> RunWatch:
        """Where to wait for words about runs that other processes work on."""
        ...

    async def begin(self, run: Run, graph: Graph, *, under: Run | None = None) -> LiveRun | None:
        """Make a new run durable, and start what can be. Raises ``VersionGone``."""
        ...

    def cancel(self, live: LiveRun, who: str) -> None:
        """Kill what runs of it, and let it tidy up."""
        ...


class Children:
    """``most_runs`` is how many this process works on at once, ``most_depth`` how many may be above one another."""

    def __init__(self, runs: Runs, store: Store, clock: Clock, *, most_runs: int, most_depth: int) -> None:
        self._runs = runs
        self._store = store
        self._clock = clock
        self._most_runs = most_runs
        self._most_depth = most_depth
        self._to_cancel: set[RunId] = set()
        self._evaluating = OneByOne()

    async def follow(self, parent: LiveRun, row: StepRun) -> StepResult:
        """Start the run that the attempt is, unless it is there, and wait for its end."""
        assert row.child_run_id is not None  # noqa: S101 - decided when the attempt began
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                try:
                    refusal = await self._ensure(parent, row, row.child_run_id)
                    return refusal or await self._wait(row.child_run_id)
                except StoreUnavailable as fault:
                    _log.warning("run below not reached yet", run_id=row.child_run_id, reason=fault.message)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            self._to_cancel.discard(row.child_run_id)

    def cancel(self, child_run_id: RunId) -> None:
        """Let the run end, or never begin."""
        live = self._runs.find(child_run_id)
        if live is None:
            self._to_cancel.add(child_run_id)
            self._runs.watch.wake(child_run_id)
        else:
            self._runs.cancel(live, _BY_PARENT)

    async def _ensure(self, parent: LiveRun, row: StepRun, child_run_id: RunId) -> StepResult | None:
        """See to it that the run is there; otherwise what the attempt comes to without it."""
        while self._runs.find(child_run_id) is None and await self._store.runs.find(child_run_id) is None:
            if child_run_id in self._to_cancel:
                return StepResult(StepStatus.CANCELLED, "cancelled")
            try:
                run, graph = await self._make(parent, row, child_run_id)
                begun = await self._runs.begin(run, graph, under=parent.run)
            except _CannotStart as problem:
                return problem.result
            except VersionGone:
                # In this very moment, because there is a newer one. That of the run above stays as long as that does.
                continue
            if begun is None and await self._store.runs.find(child_run_id) is None:
                return failure("WorkflowNotFound", f"there is no workflow {run.workflow_id} any more")
        return None

    async def _make(self, parent: LiveRun, row: StepRun, child_run_id: RunId) -> tuple[Run, Graph]:
        if parent.run.depth >= self._most_depth:
            raise _CannotStart("TooDeep", f"runs may be {self._most_depth} deep below one another, and this one is")
        if self._runs.live_count >= self._most_runs:
            raise _CannotStart("TooManyRuns", f"the server works on {self._most_runs} runs, which is the most allowed")
        config = parent.graph.steps[row.step].config
        source, graph = await self._find_source(parent, config["workflow_id"])
        try:
            given = await self._evaluating.do(
                lambda: render(config.get("inputs") or {}, attempt_context(parent.graph, parent.state(), row))
            )
            inputs = check_inputs(graph.definition, given)
            run = new_run(source, graph, inputs, self._clock.now(), child_run_id)
        except RequestRefused as refusal:
            raise _CannotStart("InvalidInputs", refusal.message) from refusal
        return await self._below(parent, row, run), graph

    async def _find_source(self, parent: LiveRun, wanted: str) -> tuple[Source, Graph]:
        run = parent.run
        if wanted == SELF:
            return Source(run.workflow_id, run.workflow_version, run.workflow_name, run.owner_id), parent.graph
        workflow = await self._store.workflows.find(WorkflowId(wanted))
        if workflow is None or workflow.owner_id != run.owner_id:
            raise _CannotStart("WorkflowNotFound", f"the owner of this run has no workflow {wanted}")
        try:
            graph = await self._runs.graphs.read(workflow.workflow_id, workflow.version, workflow.definition)
        except InvalidDefinition as problem:
            raise _CannotStart("InvalidDefinition", problem.message) from problem
        return Source.of(workflow), graph

    async def _below(self, parent: LiveRun, row: StepRun, run: Run) -> Run:
        """The run in its place: a limit of the step holds from now on, and turns that it has from above are its own."""
        limit_s = parent.graph.steps[row.step].timeout_s
        facts: dict[str, Any] = {
            "parent_run_id": parent.run.run_id,
            "parent_step": row.step,
            "depth": parent.run.depth + 1,
            "trigger_type": TriggerType.RUN,
            "trigger_id": parent.run.run_id,
            "deadline_at": None if limit_s is None else run.created_at + timedelta(seconds=limit_s),
        }
        if run.slot_group is not None and await self._has_turn(parent.run, run.slot_group):
            # It would wait for the run that waits for it.
            facts |= {"slot_group": None, "slot_limit": None, "started_at": run.created_at}
        return replace(run, **facts)

    async def _has_turn(self, run: Run | None, group: str) -> bool:
        """Whether a run or one above it is in the group."""
        while run is not None and run.slot_group != group:
            run = None if run.parent_run_id is None else await self._store.runs.find(run.parent_run_id)
        return run is not None

    async def _wait(self, child_run_id: RunId) -> StepResult:
        """Wait for the end: it is heard of at once in this process, and looked for when it is in another."""
        pause_s = _FIRST_PAUSE_S
        while True:
            live = self._runs.find(child_run_id)
            if live is not None:
                await self._wait_here(live)
                run: Run | None = live.run
            else:
                run = await self._store.runs.find(child_run_id)
            if run is None:
                return failure("Lost", f"run {child_run_id} is gone")
            if not run.is_live:
                return _result_of(run)
            await self._cancel_elsewhere(child_run_id)
            await self._runs.watch.wait(child_run_id, pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _cancel_elsewhere(self, child_run_id: RunId) -> None:
        """Tell whichever process works on it, by a row that outlives them all."""
        if child_run_id in self._to_cancel and self._runs.find(child_run_id) is None:
            word = signal_of(child_run_id, CancelAsked(_BY_PARENT), self._clock.now())
            await self._store.signals.insert(word)
            self._to_cancel.discard(child_run_id)

    async def _wait_here(self, live: LiveRun) -> None:
        if live.run.run_id in self._to_cancel:
            self._to_cancel.discard(live.run.run_id)
            self._runs.cancel(live, _BY_PARENT)
        while not live.closed:
            await live.wait_for_change()


def _result_of(run: Run) -> StepResult:
    """What the end of a run means for the step that started it."""
    why = f": {run.error.value}" if run.error is not None else ""
    match run.status:
        case RunStatus.SUCCEEDED:
            return StepResult(StepStatus.SUCCEEDED, "succeeded", outputs=run.outputs or {})
        case RunStatus.TIMED_OUT:
            error = ErrorReport("ChildTimedOut", f"run {run.run_id} timed out{why}", "")
            return StepResult(StepStatus.TIMED_OUT, "timed_out", error=error)
        case RunStatus.CANCELLED:
            # Whoever cancelled it does not want it to be tried again.
            error = ErrorReport("ChildCancelled", f"run {run.run_id} was cancelled", "")
            return StepResult(StepStatus.FAILED, "cancelled", error=error)
        case _:
            return failure("ChildFailed", f"run {run.run_id} failed{why}")
