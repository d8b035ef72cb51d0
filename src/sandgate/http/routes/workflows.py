"""Making, reading, changing and starting workflows."""

from typing import Annotated

from starlette.requests import Request

from sandgate.core import errors
from sandgate.http.api import Api
from sandgate.http.audit import Audit
from sandgate.http.authentication import Caller
from sandgate.http.exchange import exchange_of
from sandgate.http.idempotency import keeper
from sandgate.http.marks import Query
from sandgate.http.models.workflows import (
    Definition,
    DeleteQuery,
    ListWorkflows,
    PlanAnswer,
    RunAnswer,
    RunStatusAnswer,
    SchemaAnswer,
    StartQuery,
    StartWorkflow,
    StatusQuery,
    WorkflowAnswer,
    WorkflowDeletedAnswer,
    WorkflowsAnswer,
)
from sandgate.http.pagination import next_cursor
from sandgate.http.paths import WorkflowPath, parse_run_id
from sandgate.workflows.base import Workflows
from sandgate.workflows.plan import make_plan
from sandgate.workflows.schema import definition_schema

_ORCHESTRATOR = "/api/v1/orchestrator"
_WORKFLOWS = f"{_ORCHESTRATOR}/workflows"
_WORKFLOW = f"{_WORKFLOWS}/{{workflow_id}}"
_TAG = "workflows"


def add_workflow_routes(api: Api, workflows: Workflows) -> None:
    """Declare the operations."""
    _add_collection_routes(api, workflows)
    _add_item_routes(api, workflows)
    _add_start_routes(api, workflows)


def _add_collection_routes(api: Api, workflows: Workflows) -> None:
    @api.operation(
        "POST",
        _WORKFLOWS,
        tag=_TAG,
        status=201,
        idempotent=True,
        errors=(errors.Forbidden, errors.InvalidDefinition, errors.TooManyWorkflows),
    )
    async def create_workflow(caller: Caller, body: Definition, request: Request) -> WorkflowAnswer:
        """Make a workflow. All that is wrong with a definition is in one answer."""
        return WorkflowAnswer.of(await workflows.create(caller, body.root, keeper(request, WorkflowAnswer.of)))

    @api.operation("GET", _WORKFLOWS, tag=_TAG)
    async def list_workflows(caller: Caller, query: Annotated[ListWorkflows, Query()]) -> WorkflowsAnswer:
        """List your workflows, newest first; an admin's list holds everybody's."""
        page = await workflows.list(caller, query.page_request("workflow"), name=query.name)
        return WorkflowsAnswer(workflows=[WorkflowAnswer.of(row) for row in page.items], next_cursor=next_cursor(page))

    @api.operation("POST", f"{_WORKFLOWS}/validate", tag=_TAG, audit=Audit.READ, errors=(errors.InvalidDefinition,))
    async def validate_workflow(caller: Caller, body: Definition) -> PlanAnswer:
        """Look what a definition would do, without making anything."""
        return PlanAnswer(plan=make_plan(await workflows.validate(caller, body.root)).as_json())

    @api.operation("GET", f"{_ORCHESTRATOR}/schema", tag=_TAG)
    async def get_schema(caller: Caller) -> SchemaAnswer:  # noqa: ARG001 - everybody with a credential
        """Get the JSON Schema that definitions have to fit, for editors; `validate` says more, and says it better."""
        return SchemaAnswer(definition_schema())


def _add_item_routes(api: Api, workflows: Workflows) -> None:
    @api.operation("GET", _WORKFLOW, tag=_TAG, errors=(errors.WorkflowNotFound,))
    async def get_workflow(caller: Caller, workflow_id: WorkflowPath) -> WorkflowAnswer:
        """Get one workflow with its newest version."""
        return WorkflowAnswer.of(await workflows.get(caller, workflow_id))

    @api.operation(
        "PUT",
        _WORKFLOW,
        tag=_TAG,
        errors=(errors.WorkflowNotFound, errors.Forbidden, errors.InvalidDefinition, errors.WorkflowChanged),
    )
    async def replace_workflow(caller: Caller, workflow_id: WorkflowPath, body: Definition) -> WorkflowAnswer:
        """Make the next version. Runs keep the version that they were started with."""
        return WorkflowAnswer.of(await workflows.replace(caller, workflow_id, body.root))

    @api.operation(
        "DELETE", _WORKFLOW, tag=_TAG, errors=(errors.WorkflowNotFound, errors.Forbidden, errors.WorkflowRunning)
    )
    async def delete_workflow(
        caller: Caller, workflow_id: WorkflowPath, query: Annotated[DeleteQuery, Query()]
    ) -> WorkflowDeletedAnswer:
        """Delete a workflow. One whose runs are not over is kept, unless `force` cancels them."""
        await workflows.delete(caller, workflow_id, force=query.force == "true")
        return WorkflowDeletedAnswer(workflow_id=workflow_id)


def _add_start_routes(api: Api, workflows: Workflows) -> None:
    @api.operation(
        "POST",
        f"{_WORKFLOW}/start",
        tag=_TAG,
        idempotent=True,
        errors=(
            errors.InvalidRequest,
            errors.ExpressionError,
            errors.WorkflowNotFound,
            errors.Forbidden,
            errors.TooManyRuns,
            errors.ServiceDraining,
        ),
    )
    async def start_workflow(
        caller: Caller,
        workflow_id: WorkflowPath,
        query: Annotated[StartQuery, Query()],
        request: Request,
        body: StartWorkflow | None = None,
    ) -> RunAnswer:
        """Start a run; it is on disk when the answer leaves. With `wait`, the answer is the finished run."""
        inputs = {} if body is None else body.inputs
        drafted = exchange_of(request.scope).drafted
        if drafted is not None:
            run_id = parse_run_id(RunAnswer.model_validate_json(drafted).run_id)
            return RunAnswer.of(await workflows.join(caller, run_id, query.wait))
        keep = keeper(request, RunAnswer.of, 200, is_draft=query.wait > 0)
        return RunAnswer.of(await workflows.start(caller, workflow_id, inputs, query.wait, keep))

    @api.operation("GET", f"{_WORKFLOW}/status", tag=_TAG, errors=(errors.WorkflowNotFound, errors.RunNotFound))
    async def get_workflow_status(
        caller: Caller, workflow_id: WorkflowPath, query: Annotated[StatusQuery, Query()]
    ) -> RunStatusAnswer:
        """How far the newest run of a workflow is, step by step, or the run that `run_id` names."""
        run_id = None if query.run_id is None else parse_run_id(query.run_id)
        return RunStatusAnswer.of_view(await workflows.view_newest(caller, workflow_id, run_id))
