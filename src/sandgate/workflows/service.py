"""The use cases of workflows and their runs."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

from sandgate.config.settings import Settings
from sandgate.core.clock import Clock
from sandgate.core.errors import (
    Forbidden,
    RunNotFound,
    ServiceDraining,
    TooManyRuns,
    TooManyWorkflows,
    WorkflowChanged,
    WorkflowRunning,
)
from sandgate.core.idempotency import Keep
from sandgate.core.ids import RunId, UserId, WorkflowId, make_workflow_id
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal, Role
from sandgate.core.run import HistoryEvent, Run, StepRun
from sandgate.core.trigger import Trigger
from sandgate.core.workflow import Json, Workflow, WorkflowDefinition
from sandgate.store.base import NoteKind, RunChange, RunFilter, RunNote, Store, VersionGone
from sandgate.workflows.base import RunInsert, RunView, StepSandboxes
from sandgate.workflows.control import RunControl
from sandgate.workflows.engine import Engine
from sandgate.workflows.events import CancelAsked, Decided
from sandgate.workflows.feed import RunFeed
from sandgate.workflows.inputs import check_inputs
from sandgate.workflows.live import LiveRun
from sandgate.workflows.new_runs import Source, new_run
from sandgate.workflows.positions import Batch, Position
from sandgate.workflows.refusals import run_not_found, step_not_found, workflow_not_found
from sandgate.workflows.signals import signal_of
from sandgate.workflows.state import Graph

_SHOWN_RUNS = 10


class WorkflowService:
    """``Workflows`` on a store and an engine."""

    def __init__(
        self, store: Store, engine: Engine, sandboxes: StepSandboxes, clock: Clock, settings: Settings
    ) -> None:
        self._store = store
        self._engine = engine
        self._sandboxes = sandboxes
        self._clock = clock
        self._control = RunControl(store, engine, clock)
        self._most_runs = settings.max_runs
        self._most_workflows = settings.max_workflows_per_user
        self._draining = False

    async def start_engine(self) -> None:
        """Take over what an earlier process left."""
        await self._engine.start()

    async def stop(self) -> None:
        """Take no new work, and let go of the runs; the next start goes on with them."""
        self._draining = True
        await self._engine.stop()

    async def validate(self, caller: Principal, raw: Json) -> WorkflowDefinition:
        """See ``Workflows``."""
        return await self._check(caller, raw, caller.user_id)

    async def _check(self, caller: Principal, raw: Json, owner_id: UserId) -> WorkflowDefinition:
        return await self._engine.graphs.check(raw, self._sandboxes.look_up(raw, owner_id), caller.user_id)

    async def create(self, caller: Principal, raw: Json, keep: Keep[Workflow] | None = None) -> Workflow:
        """See ``Workflows``."""
        _check_can_write(caller)
        definition = await self._check(caller, raw, caller.user_id)
        now = self._clock.now()
        workflow = Workflow(make_workflow_id(), caller.user_id, definition.name, 1, raw, now, now)
        if not await self._store.workflows.insert(workflow, keep and keep(workflow), most=self._most_workflows):
            raise TooManyWorkflows(
                f"You have {self._most_workflows} workflows, the most allowed; delete one that you do not need",
                {"limit": self._most_workflows},
            )
        return workflow

    async def get(self, caller: Principal, workflow_id: WorkflowId) -> Workflow:
        """See ``Workflows``."""
        workflow = await self._store.workflows.find(workflow_id)
        if workflow is None or not (caller.is_admin or workflow.owner_id == caller.user_id):
            raise workflow_not_found(workflow_id)
        return workflow

    async def definition_of(self, workflow: Workflow) -> WorkflowDefinition:
        """See ``Workflows``."""
        return (await self._read(workflow)).definition

    async def list(self, caller: Principal, page: PageRequest, *, name: str | None = None) -> Page[Workflow]:
        """See ``Workflows``."""
        return await self._store.workflows.list(None if caller.is_admin else caller.user_id, name, page)

    async def replace(self, caller: Principal, workflow_id: WorkflowId, raw: Json) -> Workflow:
        """See ``Workflows``."""
        workflow = await self._get_to_change(caller, workflow_id)
        definition = await self._check(caller, raw, workflow.owner_id)
        changes = {"name": definition.name, "definition": raw, "updated_at": self._clock.now()}
        changed = replace(workflow, version=workflow.version + 1, **changes)
        if not await self._store.workflows.replace(changed):
            raise WorkflowChanged(f"Workflow {workflow_id} was changed by somebody else just now; look, and try again")
        return changed

    async def delete(self, caller: Principal, workflow_id: WorkflowId, *, force: bool) -> None:
        """See ``Workflows``."""
        await self._get_to_change(caller, workflow_id)
        now, last_word = self._clock.now(), CancelAsked(caller.name)
        deleted = await self._store.workflows.delete(
            workflow_id, now, (lambda run_id: signal_of(run_id, last_word, now)) if force else None
        )
        if deleted is None:
            raise workflow_not_found(workflow_id)
        live = await self._store.runs.list_live(workflow_id)
        if not deleted:
            raise WorkflowRunning(
                f"Workflow {workflow_id} has runs that are not over; cancel them, or delete it with ?force=true",
                {"run_ids": list(live[:_SHOWN_RUNS])},
            )
        for run_id in live:
            self._engine.hear(RunNote(NoteKind.SIGNAL, run_id))

    async def start(
        self,
        caller: Principal,
        workflow_id: WorkflowId,
        inputs: Mapping[str, Json],
        wait_s: float,
        keep: Keep[Run] | None = None,
    ) -> Run:
        """See ``Workflows``."""
        workflow = await self._get_to_change(caller, workflow_id)
        live = await self._begin_newest(workflow, inputs, Trigger(), None if keep is None else self._insert_with(keep))
        if live is None:
            raise workflow_not_found(workflow_id)
        if wait_s:
            await live.wait_for_end(wait_s)
        return live.run

    async def start_triggered(
        self, workflow_id: WorkflowId, inputs: Mapping[str, Json], trigger: Trigger, insert: RunInsert
    ) -> Run | None:
        """See ``TriggeredRuns``."""
        workflow = await self._store.workflows.find(workflow_id)
        if workflow is None:
            return None
        owner = await self._store.users.find(workflow.owner_id)
        if owner is None or owner.disabled or owner.role is Role.VIEWER:
            raise Forbidden(f"The owner of workflow {workflow_id} is disabled, gone, or only reads; no run is started")
        live = await self._begin_newest(workflow, inputs, trigger, insert)
        return None if live is None else live.run

    async def cancel_quietly(self, run_ids: Sequence[RunId], who: str) -> None:
        """See ``TriggeredRuns``."""
        found = [await self._store.runs.find(run_id) for run_id in run_ids]
        await self._control.cancel_all([run for run in found if run and run.cancel_asked_at is None], who)

    async def _begin_newest(
        self, workflow: Workflow, inputs: Mapping[str, Json], trigger: Trigger, insert: RunInsert | None = None
    ) -> LiveRun | None:
        """Begin a run of a workflow that was just read, or of the version that has just taken its place."""
        newest: Workflow | None = workflow
        while newest is not None:
            try:
                return await self._begin(newest, inputs, trigger, insert)
            except VersionGone:
                newest = await self._store.workflows.find(workflow.workflow_id)
        return None

    async def _begin(
        self, workflow: Workflow, inputs: Mapping[str, Json], trigger: Trigger, insert: RunInsert | None = None
    ) -> LiveRun | None:
        graph = await self._read(workflow)
        given = check_inputs(graph.definition, inputs)
        self._check_has_room()
        run = new_run(Source.of(workflow), graph, given, self._clock.now())
        run = replace(run, trigger_type=trigger.type, trigger_id=trigger.id, trigger_at=trigger.at)
        return await self._engine.begin(run, graph, insert)

    async def _read(self, workflow: Workflow) -> Graph:
        return await self._engine.graphs.read(workflow.workflow_id, workflow.version, workflow.definition)

    def _insert_with(self, keep: Keep[Run]) -> RunInsert:
        async def insert(change: RunChange, lease_s: float) -> bool:
            return await self._store.runs.insert(change, lease_s, answer=keep(change.run))

        return insert

    async def join(self, caller: Principal, run_id: RunId, wait_s: float) -> Run:
        """See ``Workflows``."""
        return await self._control.wait_for_end(await self._find_run(caller, run_id), wait_s)

    async def view(self, caller: Principal, run_id: RunId) -> RunView:
        """See ``Workflows``."""
        return await self._view(await self._find_run(caller, run_id))

    async def view_newest(self, caller: Principal, workflow_id: WorkflowId, run_id: RunId | None) -> RunView:
        """See ``Workflows``."""
        await self.get(caller, workflow_id)
        if run_id is None:
            run = await self._store.runs.find_newest(workflow_id)
            if run is None:
                raise RunNotFound(f"Workflow {workflow_id} has not been started yet; POST to its /start does")
            return await self._view(run)
        run = await self._find_run(caller, run_id)
        if run.workflow_id != workflow_id:
            raise run_not_found(run_id)
        return await self._view(run)

    async def get_step(self, caller: Principal, run_id: RunId, step: str, item: int | None = None) -> StepRun:
        """See ``Workflows``."""
        run = await self._find_run(caller, run_id)
        row = await self._store.runs.find_step(run_id, step, item)
        if row is None and (item is not None or not await self._has_step(run, step)):
            raise step_not_found(run_id, step, item)
        return row or StepRun(run_id, step)

    async def list_runs(self, caller: Principal, wanted: RunFilter, page: PageRequest) -> Page[Run]:
        """See ``Workflows``."""
        return await self._store.runs.list(replace(wanted, owner_id=None if caller.is_admin else caller.user_id), page)

    async def list_history(
        self, caller: Principal, run_id: RunId, first: int, most: int
    ) -> tuple[Sequence[HistoryEvent], int | None]:
        """See ``Workflows``."""
        run = await self._find_run(caller, run_id)
        events = await self._store.runs.list_history(run.run_id, first, most + 1)
        shown = events[:most]
        # Fewer than were asked for are no sign of the end.
        has_more = len(events) > most or (bool(shown) and shown[-1].number + 1 < run.events)
        return shown, shown[-1].number + 1 if has_more else None

    async def follow(self, caller: Principal, run_id: RunId, position: Position) -> AsyncGenerator[Batch, None]:
        """See ``Workflows``."""
        run = await self._find_run(caller, run_id)
        return RunFeed(self._store, self._engine, run.run_id, position).batches()

    async def cancel(self, caller: Principal, run_id: RunId) -> Run:
        """See ``Workflows``."""
        run = await self._find_run(caller, run_id)
        _check_can_write(caller)
        return await self._control.cancel(run, caller.name)

    async def decide(
        self, caller: Principal, run_id: RunId, step: str, *, approved: bool, comment: str, item: int | None = None
    ) -> RunView:
        """See ``Workflows``."""
        run = await self._find_run(caller, run_id)
        _check_can_write(caller)
        graph = await self._graph_of(run)
        await self._control.decide(run, graph, caller, Decided(step, approved, caller.name, comment, item))
        return await self._view(await self._find_run(caller, run_id))

    async def retry(
        self, caller: Principal, run_id: RunId, from_step: str | None, keep: Keep[Run] | None = None
    ) -> Run:
        """See ``Workflows``."""
        run = await self._find_run(caller, run_id)
        _check_can_write(caller)
        self._check_has_room()
        graph = await self._graph_of(run)
        gone = workflow_not_found(run.workflow_id)
        return await self._control.retry(run, graph, caller.name, from_step, gone, keep)

    def _check_has_room(self) -> None:
        if self._draining:
            raise ServiceDraining("The service is stopping and takes no new work; ask again when it is back")
        if self._engine.live_count >= self._most_runs:
            raise TooManyRuns(
                f"The server works on {self._most_runs} runs, which is the most allowed; wait until one ends",
                {"limit": self._most_runs},
                retry_after_s=5,
            )

    async def _view(self, run: Run) -> RunView:
        definition = await self._definition_of(run)
        shown = await self._store.runs.show_steps(run.run_id)
        return RunView(run, definition, shown.steps, shown.omitted)

    async def _has_step(self, run: Run, name: str) -> bool:
        definition = await self._definition_of(run)
        return any(step.name == name for step in (*definition.steps, *definition.on_error, *definition.final))

    async def _definition_of(self, run: Run) -> WorkflowDefinition:
        live = self._engine.find(run.run_id)
        if live is not None:
            return live.graph.definition
        return await self._engine.graphs.show(run.workflow_id, run.workflow_version)

    async def _graph_of(self, run: Run) -> Graph:
        live = self._engine.find(run.run_id)
        return await self._engine.graphs.load(run.workflow_id, run.workflow_version) if live is None else live.graph

    async def _find_run(self, caller: Principal, run_id: RunId) -> Run:
        live = self._engine.find(run_id)
        run = live.run if live is not None else await self._store.runs.find(run_id)
        if run is None or not (caller.is_admin or run.owner_id == caller.user_id):
            raise run_not_found(run_id)
        return run

    async def _get_to_change(self, caller: Principal, workflow_id: WorkflowId) -> Workflow:
        workflow = await self.get(caller, workflow_id)
        _check_can_write(caller)
        return workflow


def _check_can_write(caller: Principal) -> None:
    if not caller.can_write:
        raise Forbidden(f"The role {caller.role} only reads; ask an admin for the role user")
