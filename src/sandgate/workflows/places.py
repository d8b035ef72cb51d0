"""Where the code of an attempt runs: in a sandbox of its own, in the workspace of its run, or where it says itself."""

from dataclasses import dataclass, replace

from sandgate.core.errors import EnvironmentNotFound
from sandgate.core.execution import ExecutionRequest, StepData, Termination
from sandgate.core.ids import EnvironmentId, ExecutionId, RunId, UserId, make_execution_id
from sandgate.core.output_tap import OutputTap
from sandgate.core.run import Run, StepKey, StepRun, StepStatus
from sandgate.core.workflow import StepDefinition, StepType, WorkflowDefinition
from sandgate.sandbox.base import Collect, Mask
from sandgate.workflows.base import Place, StepEnvironments, StepSandboxes
from sandgate.workflows.contexts import attempt_context
from sandgate.workflows.expressions import render_text
from sandgate.workflows.state import Graph, RunState
from sandgate.workflows.step_templates import StepTemplate
from sandgate.workflows.workspaces import Workspaces


class Places:
    """``workspaces`` and ``environments`` are None where there are none."""

    def __init__(
        self, sandboxes: StepSandboxes, workspaces: Workspaces | None, environments: StepEnvironments | None
    ) -> None:
        self._sandboxes = sandboxes
        self._workspaces = workspaces
        self._environments = environments

    def expect(self, graph: Graph, run: Run, row: StepRun) -> None:
        """A hint that an attempt is about to be made."""
        step = graph.steps[row.step]
        if step.type is StepType.CODE_EXECUTION and not graph.definition.shares_workspace and not _is_named(step):
            self._sandboxes.expect(StepTemplate.of(run, step.config.get("template")))

    def find(self, graph: Graph, state: RunState, row: StepRun, mask: Mask | None = None) -> Place:
        """Where an attempt is to run. A record that is made there, beside that of the run, is what ``mask`` says.

        Raises ``ExpressionError``.
        """
        step = graph.steps[row.step]
        if _is_named(step):
            name = render_text(step.config["environment_id"], attempt_context(graph, state, row))
            attempt = _Attempt(self._sandboxes, attempt_name(row))
            return _Named(attempt, self._environments, state.run.owner_id, EnvironmentId(name), mask)
        if graph.definition.shares_workspace and self._workspaces is not None:
            template = _template_of_all(graph, state)
            attempt = _Attempt(self._sandboxes, attempt_name(row))
            return _Shared(attempt, self._workspaces, state.run.run_id, template, _was_used(graph, state, row))
        return _Own(self._sandboxes, attempt_name(row), StepTemplate.of(state.run, step.config.get("template")))

    def take_over(self, graph: Graph, state: RunState) -> frozenset[StepKey]:
        """Which attempts an earlier process began and can be taken up; the rest is lost."""
        kept = self._sandboxes.kept()
        running = [row for row in state.steps.values() if row.status is StepStatus.RUNNING]
        found = frozenset(row.key for row in running if attempt_name(row) in kept)
        lost = [row for row in running if row.key not in found and row.items is None]
        if self._workspaces is not None and graph.definition.shares_workspace:
            self._workspaces.count(state.run.run_id, _template_of_all(graph, state))
        if self._workspaces is not None and any(self._is_shared(graph, row) for row in lost):
            self._workspaces.miss(state.run.run_id)
        return found

    @staticmethod
    def _is_shared(graph: Graph, row: StepRun) -> bool:
        step = graph.steps[row.step]
        return graph.definition.shares_workspace and step.type is StepType.CODE_EXECUTION and not _is_named(step)

    def release(self, run_id: RunId) -> None:
        """The run is over, or another process's."""
        if self._workspaces is not None:
            self._workspaces.release(run_id)


def attempt_name(row: StepRun) -> str:
    """What no other attempt is called, of this run or another."""
    return f"{row.run_id}|{row.step}|{'-' if row.item is None else row.item}|{row.attempt}"


@dataclass(frozen=True, slots=True)
class _Own:
    sandboxes: StepSandboxes
    attempt: str
    template: StepTemplate
    goes_on = False

    async def execute(
        self,
        code: str,
        timeout_s: float,
        data: StepData,
        tap: OutputTap | None = None,
        collect: Collect | None = None,
    ) -> Termination:
        return await self.sandboxes.execute(self.attempt, self.template, code, timeout_s, data, tap, collect)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One that runs where others do, too."""

    sandboxes: StepSandboxes
    name: str

    def request(
        self,
        code: str,
        timeout_s: float,
        data: StepData,
        tap: OutputTap | None,
        execution_id: ExecutionId | None = None,
    ) -> ExecutionRequest:
        """What is asked of the sandbox, with what a later process takes it up by."""
        tag = self.sandboxes.tag(self.name, data.folder, execution_id)
        return ExecutionRequest(code, timeout_s, data, tap=tap, tag=tag.text)


@dataclass(frozen=True, slots=True)
class _Named:
    attempt: _Attempt
    environments: StepEnvironments | None
    owner_id: UserId
    environment_id: EnvironmentId
    mask: Mask | None
    goes_on = True

    async def execute(
        self,
        code: str,
        timeout_s: float,
        data: StepData,
        tap: OutputTap | None = None,
        collect: Collect | None = None,
    ) -> Termination:
        if self.environments is None:
            raise EnvironmentNotFound(f"There is no environment {self.environment_id} here")
        request = self.attempt.request(code, timeout_s, data, tap, make_execution_id())
        return await self.environments.execute_step(self.owner_id, self.environment_id, request, self.mask, collect)


@dataclass(frozen=True, slots=True)
class _Shared:
    attempt: _Attempt
    workspaces: Workspaces
    run_id: RunId
    template: StepTemplate
    was_used: bool
    goes_on = True

    async def execute(
        self,
        code: str,
        timeout_s: float,
        data: StepData,
        tap: OutputTap | None = None,
        collect: Collect | None = None,
    ) -> Termination:
        language = self.attempt.sandboxes.find_language(self.template, data)
        request = replace(self.attempt.request(code, timeout_s, data, tap), language=language)
        return await self.workspaces.execute(
            self.run_id, self.template, request, was_used=self.was_used, collect=collect
        )


def workspace_template(definition: WorkflowDefinition) -> str | None:
    """What the workspace is made from: the one template that steps name, or the newest Python."""
    steps = (*definition.steps, *definition.on_error, *definition.final)
    named = (step.config.get("template") for step in steps if step.type is StepType.CODE_EXECUTION)
    return next(filter(None, named), None)


def _template_of_all(graph: Graph, state: RunState) -> StepTemplate:
    return StepTemplate.of(state.run, workspace_template(graph.definition))


def _was_used(graph: Graph, state: RunState, row: StepRun) -> bool:
    """Whether an attempt has ended that ran in the workspace."""
    if row.attempt > 1:
        return True
    return any(_ran_in_workspace(graph.steps[other.step], other) for other in state.steps.values())


def _ran_in_workspace(step: StepDefinition, row: StepRun) -> bool:
    has_run = not row.is_live and row.status is not StepStatus.SKIPPED and row.attempt > 0 and row.items is None
    return has_run and step.type is StepType.CODE_EXECUTION and not _is_named(step)


def _is_named(step: StepDefinition) -> bool:
    return step.config.get("environment_id") is not None
