"""What clients send and get to read about workflows and their runs."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, RootModel, model_validator

from sandgate.core.errors import InvalidDefinition
from sandgate.core.run import Run, RunStatus, StepKey, StepRun, StepStatus
from sandgate.core.trigger import TriggerType
from sandgate.core.workflow import StepDefinition, Workflow
from sandgate.http.models.base import Model
from sandgate.http.models.environments import ExecutionErrorAnswer
from sandgate.http.models.parts import Cursor, with_example
from sandgate.http.pagination import PageQuery
from sandgate.workflows.base import RunView
from sandgate.workflows.expressions import kind
from sandgate.workflows.names import MAX_ITEMS
from sandgate.workflows.state import RunState, outputs_of

_WORKFLOW_ID = "workflow-06evrhxq8g000wmabyzsqnd3wf"
_RUN_ID = "run-06evrhxr2g000r2s7n0cymq3kd"
_OWNER_ID = "user-06evrhwp4g000e8v0zrc4v1m6h"
_TIME = "2026-01-01T00:00:00Z"
_STEPS: list[Any] = [{"name": "step1", "type": "code_execution", "config": {"code": "print('Step 1')"}}]
_DEFINITION: dict[str, Any] = {"name": "test-workflow", "steps": _STEPS}
_WORKFLOW = {
    "workflow_id": _WORKFLOW_ID,
    "name": "test-workflow",
    "status": "active",
    "creation_time": _TIME,
    "steps": _STEPS,
    "version": 1,
    "updated_at": _TIME,
    "owner_id": _OWNER_ID,
    "definition": _DEFINITION,
}
RUN_EXAMPLE = {
    "workflow_id": _WORKFLOW_ID,
    "run_id": _RUN_ID,
    "status": "succeeded",
    "workflow_name": "test-workflow",
    "workflow_version": 1,
    "creation_time": _TIME,
    "started_at": _TIME,
    "finished_at": _TIME,
    "inputs": {},
    "outputs": {},
    "error": None,
    "owner_id": _OWNER_ID,
    "parent_run_id": None,
    "parent_step": None,
    "concurrency_group": None,
    "trigger": {"type": "api", "id": None, "at": None},
    "templates": {},
}
_STEP = {
    "name": "step1",
    "type": "code_execution",
    "status": "succeeded",
    "attempts": 1,
    "started_at": _TIME,
    "finished_at": _TIME,
    "duration_ms": 2,
    "exit_code": 0,
    "outputs": {},
    "stdout": "Step 1\n",
    "stderr": "",
    "output_omitted": False,
    "error": None,
    "child_run_id": None,
    "items": None,
}
STEP_RUN_EXAMPLE = {"step": "step1", "item": None} | {
    name: value for name, value in _STEP.items() if name not in ("name", "type", "items")
}


class Definition(RootModel[dict[str, Any]]):
    """A workflow's definition; `GET /api/v1/orchestrator/schema` describes it in full."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [_DEFINITION]})

    @model_validator(mode="before")
    @classmethod
    def _check_is_object(cls, value: Any) -> Any:
        """What is no object is told like all else that is wrong with a definition."""
        if not isinstance(value, dict):
            raise InvalidDefinition([("", f"has to be an object, not {kind(value)}")])
        return value


class SchemaAnswer(RootModel[dict[str, Any]]):
    """The JSON Schema (2020-12) of a workflow's definition."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "object", "required": ["name", "steps"]}]})


class StartWorkflow(Model):
    """What a run is started with."""

    model_config = ConfigDict(strict=True, extra="forbid", json_schema_extra={"examples": [{"inputs": {}}]})

    inputs: dict[str, Any] = Field(default_factory=dict)


class Decide(Model):
    """A word with an approval or a rejection; `item` says which, of a step with `foreach`."""

    model_config = ConfigDict(strict=True, extra="forbid", json_schema_extra={"examples": [{"comment": "looks good"}]})

    comment: Annotated[str, Field(max_length=2000)] = ""
    item: Annotated[int | None, Field(ge=0, lt=MAX_ITEMS)] = None


def _seconds(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


class StartQuery(Model):
    """How long to wait."""

    model_config = ConfigDict(strict=True, extra="forbid")

    wait: Annotated[
        float,
        BeforeValidator(_seconds),
        Field(ge=0, le=60, allow_inf_nan=False, description="Wait for the end of the run for so many seconds at most."),
    ] = 0.0


class DeleteQuery(Model):
    """Whether runs matter."""

    model_config = ConfigDict(strict=True, extra="forbid")

    force: Annotated[Literal["true", "false"], Field(description="Cancel its runs.")] = "false"


class StatusQuery(Model):
    """Which run is wanted."""

    model_config = ConfigDict(strict=True, extra="forbid")

    run_id: Annotated[str | None, Field(max_length=80, description="By default the newest run.")] = None


class ListWorkflows(PageQuery):
    """Which workflows are wanted."""

    name: Annotated[str | None, Field(max_length=128)] = None


class WorkflowAnswer(Model):
    """A workflow; `steps` and `definition` are as they were sent."""

    model_config = with_example(_WORKFLOW)

    workflow_id: str
    name: str
    status: Literal["active"] = "active"
    creation_time: datetime
    steps: list[dict[str, Any]]
    version: int
    updated_at: datetime
    owner_id: str
    definition: dict[str, Any]

    @classmethod
    def of(cls, row: Workflow) -> "WorkflowAnswer":
        """From the record."""
        return cls(
            workflow_id=row.workflow_id,
            name=row.name,
            creation_time=row.created_at,
            steps=row.definition["steps"],
            version=row.version,
            updated_at=row.updated_at,
            owner_id=row.owner_id,
            definition=dict(row.definition),
        )


class WorkflowsAnswer(Model):
    """A page of workflows, newest first."""

    model_config = with_example({"workflows": [_WORKFLOW], "next_cursor": None})

    workflows: list[WorkflowAnswer]
    next_cursor: Cursor


class WorkflowDeletedAnswer(Model):
    """The workflow cannot be started any more."""

    model_config = with_example({"workflow_id": _WORKFLOW_ID, "status": "deleted"})

    workflow_id: str
    status: Literal["deleted"] = "deleted"


class PlanAnswer(Model):
    """The definition is valid; what it would do."""

    model_config = with_example({"valid": True, "plan": {"steps": [], "levels": [["step1"]]}})

    valid: Literal[True] = True
    plan: dict[str, Any]


class TriggerAnswer(Model):
    """What started a run: a request, a schedule, a webhook or another run.

    `at` is the time for which a schedule started it.
    """

    type: TriggerType
    id: str | None
    at: datetime | None


class RunAnswer(Model):
    """A run of a workflow. One that a step started names the run and the step."""

    model_config = with_example(RUN_EXAMPLE)

    workflow_id: str
    run_id: str
    status: RunStatus
    workflow_name: str
    workflow_version: int
    creation_time: datetime
    started_at: datetime | None
    finished_at: datetime | None
    inputs: dict[str, Any]
    outputs: dict[str, Any] | None
    error: ExecutionErrorAnswer | None
    owner_id: str
    parent_run_id: str | None
    parent_step: str | None
    concurrency_group: str | None
    trigger: TriggerAnswer
    templates: Annotated[
        dict[str, str],
        Field(
            default_factory=dict,
            description="Built templates that its steps name, each with the version that it had when the run began.",
        ),
    ]

    @classmethod
    def of(cls, run: Run) -> "RunAnswer":
        """From the record."""
        return cls(**_facts(run))


_OMITTED = "More was written than one answer holds: `stdout`, `stderr`, `outputs` and a long `error` are left out here."


class ItemAnswer(Model):
    """One item of a step with `foreach`."""

    index: int
    status: StepStatus
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: int | None
    exit_code: int | None
    outputs: dict[str, Any] | None
    stdout: str
    stderr: str
    output_omitted: Annotated[bool, Field(description=_OMITTED)]
    error: ExecutionErrorAnswer | None
    child_run_id: str | None


class StepAnswer(Model):
    """A step of a run. With `foreach`, `outputs` is a list and `items` has each item."""

    model_config = with_example(_STEP)

    name: str
    type: str
    status: StepStatus
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: int | None
    exit_code: int | None
    outputs: dict[str, Any] | list[dict[str, Any] | None] | None
    stdout: str
    stderr: str
    output_omitted: Annotated[bool, Field(description=_OMITTED)]
    error: ExecutionErrorAnswer | None
    child_run_id: str | None
    items: list[ItemAnswer] | None

    @classmethod
    def of(cls, step: StepDefinition, state: RunState, omitted: frozenset[StepKey] = frozenset()) -> "StepAnswer":
        """From the records, of which some lack their output."""
        row = state.steps.get((step.name, None)) or StepRun(state.run.run_id, step.name)
        facts = _step_facts(row, omitted)
        if row.items is None:
            return cls(name=step.name, type=step.type, items=None, **facts)
        facts["outputs"] = outputs_of(state, row, omitted)
        found = (state.steps.get((step.name, index)) for index in range(row.items))
        items = [ItemAnswer(index=item.item or 0, **_step_facts(item, omitted)) for item in found if item is not None]
        return cls(name=step.name, type=step.type, items=items, **facts)


class StepRunAnswer(Model):
    """A step of a run, or one of its items, with all that it has written."""

    model_config = with_example(STEP_RUN_EXAMPLE)

    step: str
    item: int | None
    status: StepStatus
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: int | None
    exit_code: int | None
    outputs: dict[str, Any] | None
    stdout: str
    stderr: str
    output_omitted: bool
    error: ExecutionErrorAnswer | None
    child_run_id: str | None

    @classmethod
    def of(cls, row: StepRun) -> "StepRunAnswer":
        """From the record."""
        return cls(step=row.step, item=row.item, **_step_facts(row))


class RunStatusAnswer(RunAnswer):
    """A run and how far each of its steps is."""

    model_config = with_example(RUN_EXAMPLE | {"steps": [_STEP]})

    steps: list[StepAnswer]

    @classmethod
    def of_view(cls, view: RunView) -> "RunStatusAnswer":
        """From the records. Steps of `on_error` and `finally` come last."""
        state = RunState(view.run, {row.key: row for row in view.steps})
        definition = view.definition
        steps = (*definition.steps, *definition.on_error, *definition.final)
        return cls(**_facts(view.run), steps=[StepAnswer.of(step, state, view.omitted) for step in steps])


def _facts(run: Run) -> dict[str, Any]:
    return {
        "workflow_id": run.workflow_id,
        "run_id": run.run_id,
        "status": run.status,
        "workflow_name": run.workflow_name,
        "workflow_version": run.workflow_version,
        "creation_time": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "inputs": dict(run.inputs),
        "outputs": None if run.outputs is None else dict(run.outputs),
        "error": None if run.error is None else ExecutionErrorAnswer.of(run.error),
        "owner_id": run.owner_id,
        "parent_run_id": run.parent_run_id,
        "parent_step": run.parent_step,
        "concurrency_group": run.slot_group,
        "trigger": TriggerAnswer(type=run.trigger_type, id=run.trigger_id, at=run.trigger_at),
        "templates": dict(run.templates),
    }


def _step_facts(row: StepRun, omitted: frozenset[StepKey] = frozenset()) -> dict[str, Any]:
    return {
        "status": row.status,
        "attempts": row.attempt,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "duration_ms": row.duration_ms,
        "exit_code": row.exit_code,
        "outputs": None if row.outputs is None else dict(row.outputs),
        "stdout": row.stdout,
        "stderr": row.stderr,
        "output_omitted": row.key in omitted,
        "error": None if row.error is None else ExecutionErrorAnswer.of(row.error),
        "child_run_id": row.child_run_id,
    }
