"""What the expressions of an attempt see."""

from collections.abc import Mapping

from sandgate.core.errors import ExpressionError
from sandgate.core.run import StepRun
from sandgate.core.workflow import Json, WorkflowDefinition
from sandgate.workflows.conditions import foreach_item
from sandgate.workflows.expressions import SecretValues, Work, render_text
from sandgate.workflows.state import Graph, RunState, expression_context


def attempt_context(
    graph: Graph, state: RunState, row: StepRun, secrets: SecretValues | None = None
) -> dict[str, Json]:
    """What the expressions in the ``config`` of a step see, with secrets only where these are given.

    Raises ``ExpressionError``.
    """
    context = expression_context(graph, state)
    context["env"] = visible_env(graph.definition, context)
    if row.item is not None:
        context["item"] = foreach_item(graph.steps[row.step], context, row.item)
        context["index"] = row.item
    if secrets is not None:
        context["secrets"] = secrets
        context["env"] = visible_env(graph.definition, context)
    return context


def visible_env(
    definition: WorkflowDefinition, context: Mapping[str, Json], work: Work | None = None
) -> dict[str, Json]:
    """The definition's variables that have a value in the clear; who asks for another is told that there is none.

    All of them share one bound of work.
    """
    env: dict[str, Json] = {}
    work = work or Work()
    for name, value in definition.env.items():
        try:
            env[name] = render_text(value, context, work)
        except ExpressionError:
            continue
    return env
