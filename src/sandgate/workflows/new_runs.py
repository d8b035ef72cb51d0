"""What a run is before anything of it has happened."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sandgate.core.errors import ExpressionError
from sandgate.core.ids import RunId, UserId, WorkflowId, make_run_id
from sandgate.core.run import Run, RunStatus
from sandgate.core.workflow import Json, Workflow
from sandgate.workflows.expressions import render_text
from sandgate.workflows.names import MAX_GROUP
from sandgate.workflows.state import Graph


@dataclass(frozen=True, slots=True)
class Source:
    """The version of a workflow that a run is of."""

    workflow_id: WorkflowId
    version: int
    name: str
    owner_id: UserId

    @classmethod
    def of(cls, workflow: Workflow) -> "Source":
        """The newest version."""
        return cls(workflow.workflow_id, workflow.version, workflow.name, workflow.owner_id)


def new_run(
    source: Source, graph: Graph, inputs: Mapping[str, Json], now: datetime, run_id: RunId | None = None
) -> Run:
    """The run, which waits for its turn when the definition says so. Raises ``ExpressionError``."""
    run = Run(
        started_at=now,
        run_id=run_id or make_run_id(),
        workflow_id=source.workflow_id,
        owner_id=source.owner_id,
        workflow_name=source.name,
        workflow_version=source.version,
        status=RunStatus.PENDING,
        created_at=now,
        inputs=inputs,
    )
    group = _group_of(run, graph)
    if group is None:
        return run
    return replace(run, started_at=None, slot_group=group, slot_limit=graph.definition.concurrency_limit)


def _group_of(run: Run, graph: Graph) -> str | None:
    text = graph.definition.concurrency_group
    if text is None:
        return None
    context = {
        "inputs": dict(run.inputs),
        "run": {"id": run.run_id, "workflow_id": run.workflow_id, "started_at": None},
    }
    group = render_text(text, context)
    if not 1 <= len(group) <= MAX_GROUP:
        raise ExpressionError(f"concurrency.group has to have 1 to {MAX_GROUP} characters, not {len(group)}", 0)
    return group
