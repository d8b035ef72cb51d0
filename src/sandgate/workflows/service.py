"""The use cases of workflows and their runs."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from sandgate.config.settings import Settings
from sandgate.core.clock import Clock
from sandgate.core.errors import (
    Forbidden,
    RunEnded,
    RunNotFound,
    ServiceDraining,
    StepNotWaiting,
    TooManyRuns,
    WorkflowChanged,
    WorkflowNotFound,
    WorkflowRunning,
)
from sandgate.core.ids import RunId, WorkflowId, make_run_id, make_workflow_id
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal, Role
from sandgate.core.run import Run, RunStatus, StepStatus
from sandgate.core.trigger import Trigger
from sandgate.core.workflow import Json, StepType, Workflow, WorkflowDefinition
from sandgate.store.base import RunChange, RunFilter, Store
from sandgate.workflows.base import RunView, StepSandboxes
from sandgate.workflows.definition import parse_definition
from sandgate.workflows.engine import Engine
from sandgate.workflows.events import Decided
from sandgate.workflows.inputs import check_inputs
from sandgate.workflows.live import LiveRun
from sandgate.workflows.state import Graph
from sandgate.workflows.supported import check_supported

# A cancel answers when the run has ended; what tidies up may take longer than anybody waits for an answer.
_CANCEL_WAIT_S = 30.0
_SHOWN_RUNS = 10
_GRAPHS_KEPT = 256


class WorkflowService:
    """``Workflows`` on a store and an engine."""

    def __init__(
        self, store: Store, engine: Engine, sandboxes: StepSandboxes, clock: Clock, settings: Settings
    ) -> None:
        self._store = store
        self._engine = engine
        self._sandboxes = sandboxes
        self._clock = clock
        self._most_runs = settings.max_runs
        self._graphs: dict[tuple[WorkflowId, int], Graph] = {}
        self._draining = False

    async def start_engine(self) -> None:
        """Take over what an earlier process left."""
        await self._engine.start()

    async def stop(self) -> None:
        """Take no new work, and let go of the runs; the next start goes on with them."""
        self._draining = True
        await self._engine.stop()

    def validate(self, raw: Json) -> WorkflowDefinition:
        """See ``Workflows``."""
        definition = parse_definition(raw, templates=self._sandboxes.template_names())
        check_supported(definition)
        return definition

    async def create(self, caller: Principal, raw: Json) -> Workflow:
        """See ``Workflows``."""
        _check_can_write(caller)
        definition = self.validate(raw)
        now = self._clock.now()
        workflow = Workflow(make_workflow_id(), caller.user_id, definition.name, 1, raw, now, now)
        await self._store.workflows.insert(workflow)
        return workflow

    async def get(self, caller: Principal, workflow_id: WorkflowId) -> Workflow:
        """See ``Workflows``."""
        workflow = await self._store.workflows.find(workflow_id)
        if workflow is None or not (caller.is_admin or workflow.owner_id == caller.user_id):
            raise workflow_not_found(workflow_id)
        return workflow

    async def list(self, caller: Principal, page: PageRequest, *, name: str | None = None) -> Page[Workflow]:
        """See ``Workflows``."""
        return await self._store.workflows.list(None if caller.is_admin else caller.user_id, name, page)

    async def replace(self, caller: Principal, workflow_id: WorkflowId, raw: Json) -> Workflow:
        """See ``Workflows``."""
        workflow = await self._get_to_change(caller, workflow_id)
        definition = self.validate(raw)
        changes = {"name": definition.name, "definition": raw, "updated_at": self._clock.now()}
        changed = replace(workflow, version=workflow.version + 1, **changes)
        if not await self._store.workflows.replace(changed):
            raise WorkflowChanged(f"Workflow {workflow_id} was changed by somebody else just now; look, and try again")
        return changed

    async def delete(self, caller: Principal, workflow_id: WorkflowId, *, force: bool) -> None:
        """See ``Workflows``."""
        await self._get_to_change(caller, workflow_id)
        deleted = await self._store.workflows.delete(workflow_id, self._clock.now(), even_if_live=force)
        if deleted is None:
            raise workflow_not_found(workflow_id)
        live = await self._store.runs.list_live(workflow_id)
        if not deleted:
            raise WorkflowRunning(
                f"Workflow {workflow_id} has runs that are not over; cancel them, or delete it with ?force=true",
                {"run_ids": list(live[:_SHOWN_RUNS])},
            )
        for found in filter(None, map(self._engine.find, live)):
            self._engine.cancel(found, caller.name)

    async def start(self, caller: Principal, workflow_id: WorkflowId, inputs: Mapping[str, Json], wait_s: float) -> Run:
        """See ``Workflows``."""
        workflow = await self._get_to_change(caller, workflow_id)
        live = await self._begin(workflow, inputs, Trigger())
        if live is None:
            raise workflow_not_found(workflow_id)
        if wait_s:
            await live.wait_for_end(wait_s)
        return live.run

    async def start_triggered(
        self,
        workflow_id: WorkflowId,
        inputs: Mapping[str, Json],
        trigger: Trigger,
        insert: Callable[[RunChange], Awaitable[bool]],
    ) -> Run | None:
        """See ``TriggeredRuns``."""
        workflow = await self._store.workflows.find(workflow_id)
        if workflow is None:
            return None
        owner = await self._store.users.find(workflow.owner_id)
        if owner is None or owner.disabled or owner.role is Role.VIEWER:
            raise Forbidden(f"The owner of workflow {workflow_id} is disabled, gone, or only reads; no run is started")
        live = await self._begin(workflow, inputs, trigger, insert)
        return None if live is None else live.run

    def cancel_here(self, run_id: RunId, who: str) -> bool:
        """See ``TriggeredRuns``."""
        live = self._engine.find(run_id)
        if live is not None and live.run.cancel_asked_at is None:
            self._engine.cancel(live, who)
        return live is not None

    async def _begin(
        self,
        workflow: Workflow,
        inputs: Mapping[str, Json],
        trigger: Trigger,
        insert: Callable[[RunChange], Awaitable[bool]] | None = None,
    ) -> LiveRun | None:
        if self._draining:
            raise ServiceDraining("The service is stopping and takes no new work; ask again when it is back")
        graph = self._graph(workflow.workflow_id, workflow.version, workflow.definition)
        given = check_inputs(graph.definition, inputs)
        if self._engine.live_count >= self._most_runs:
            raise TooManyRuns(
                f"The server works on {self._most_runs} runs, which is the most allowed; wait until one ends",
                {"limit": self._most_runs},
                retry_after_s=5,
            )
        run = self._new_run(workflow, given, graph)
        run = replace(run, trigger_type=trigger.type, trigger_id=trigger.id, trigger_at=trigger.at)
        return await self._engine.begin(run, graph, insert)

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

    async def list_runs(
        self, caller: Principal, page: PageRequest, *, workflow_id: WorkflowId | None, status: RunStatus | None
    ) -> Page[Run]:
        """See ``Workflows``."""
        wanted = RunFilter(None if caller.is_admin else caller.user_id, workflow_id, status)
        return await self._store.runs.list(wanted, page)

    async def cancel(self, caller: Principal, run_id: RunId) -> Run:
        """See ``Workflows``."""
        run = await self._find_run(caller, run_id)
        _check_can_write(caller)
        live = self._live(run)
        self._engine.cancel(live, caller.name)
        await live.wait_for_end(_CANCEL_WAIT_S)
        return live.run

    async def decide(self, caller: Principal, run_id: RunId, step: str, *, approved: bool, comment: str) -> RunView:
        """See ``Workflows``."""
        run = await self._find_run(caller, run_id)
        _check_can_write(caller)
        live = self._live(run)
        self._check_may_decide(caller, live, step)
        self._engine.decide(live, Decided(step, approved, caller.name, comment))
        while not live.closed and live.steps[step, None].is_live:
            await live.wait_for_change()
        return await self._view(live.run)

    def _check_may_decide(self, caller: Principal, live: LiveRun, step: str) -> None:
        row = live.steps.get((step, None))
        wanted = live.graph.steps.get(step)
        is_approval = wanted is not None and wanted.type is StepType.APPROVAL
        if wanted is None or not is_approval or row is None or row.status is not StepStatus.WAITING:
            status = None if wanted is None else StepStatus.PENDING.value if row is None else row.status.value
            raise StepNotWaiting(f"Step {step!r} does not wait for an approval", {"status": status})
        approvers = wanted.config.get("approvers")
        if approvers and caller.name not in approvers:
            raise Forbidden(f"Step {step} is for others to decide: {', '.join(approvers)}")

    def _new_run(self, workflow: Workflow, inputs: Mapping[str, Json], graph: Graph) -> Run:
        now = self._clock.now()
        limit_s = graph.definition.timeout_s
        return Run(
            run_id=make_run_id(),
            workflow_id=workflow.workflow_id,
            owner_id=workflow.owner_id,
            workflow_name=workflow.name,
            workflow_version=workflow.version,
            status=RunStatus.PENDING,
            created_at=now,
            inputs=inputs,
            started_at=now,
            deadline_at=None if limit_s is None else now + timedelta(seconds=limit_s),
        )

    def _graph(self, workflow_id: WorkflowId, version: int, raw: Json) -> Graph:
        """A version never changes, so that it is read once."""
        graph = self._graphs.get((workflow_id, version))
        if graph is None:
            if len(self._graphs) >= _GRAPHS_KEPT:
                self._graphs.clear()
            graph = self._graphs[workflow_id, version] = Graph(parse_definition(raw))
        return graph

    async def _view(self, run: Run) -> RunView:
        live = self._engine.find(run.run_id)
        if live is not None:
            definition = live.graph.definition
        else:
            raw = await self._store.workflows.find_definition(run.workflow_id, run.workflow_version)
            definition = self._graph(run.workflow_id, run.workflow_version, raw).definition
        return RunView(run, definition, await self._store.runs.list_steps(run.run_id))

    async def _find_run(self, caller: Principal, run_id: RunId) -> Run:
        live = self._engine.find(run_id)
        run = live.run if live is not None else await self._store.runs.find(run_id)
        if run is None or not (caller.is_admin or run.owner_id == caller.user_id):
            raise run_not_found(run_id)
        return run

    def _live(self, run: Run) -> LiveRun:
        live = self._engine.find(run.run_id)
        if live is None:
            raise RunEnded(
                f"Run {run.run_id} is over ({run.status}), or another server works on it", {"status": run.status.value}
            )
        return live

    async def _get_to_change(self, caller: Principal, workflow_id: WorkflowId) -> Workflow:
        workflow = await self.get(caller, workflow_id)
        _check_can_write(caller)
        return workflow


def workflow_not_found(workflow_id: str) -> WorkflowNotFound:
    """The refusal for a workflow that is not there, or somebody else's."""
    return WorkflowNotFound(f"You have no workflow {workflow_id}; GET /api/v1/orchestrator/workflows lists yours")


def run_not_found(run_id: str) -> RunNotFound:
    """The refusal for a run that is not there, or somebody else's."""
    return RunNotFound(f"You have no run {run_id}; GET /api/v1/orchestrator/runs lists yours")


def _check_can_write(caller: Principal) -> None:
    if not caller.can_write:
        raise Forbidden(f"The role {caller.role} only reads; ask an admin for the role user")
