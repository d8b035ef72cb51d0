"""Whether somebody may decide now about a step that waits for it."""

from sandgate.core.errors import Forbidden, StepNotWaiting
from sandgate.core.principal import Principal
from sandgate.workflows.state import Graph, RunState, is_approvable


def check_may_decide(caller: Principal, graph: Graph, state: RunState, step: str, item: int | None) -> None:
    """Raises ``StepNotWaiting``, ``Forbidden`` for somebody whom the step does not name."""
    row = state.steps.get((step, item))
    if row is None or not is_approvable(graph, row):
        raise _not_waiting(graph, state, step, item)
    approvers = graph.steps[step].config.get("approvers")
    if approvers and caller.name not in approvers:
        raise Forbidden(f"Step {step} is for others to decide: {', '.join(approvers)}")


def _not_waiting(graph: Graph, state: RunState, step: str, item: int | None) -> StepNotWaiting:
    whole = state.steps.get((step, None))
    items = None if whole is None else whole.items
    row = state.steps.get((step, item))
    status = None if step not in graph.steps else "pending" if row is None else row.status.value
    details = {"status": status, "item": item, "items": items}
    if items is not None and item is None:
        return StepNotWaiting(f'Step {step!r} is decided item by item; say which: {{"item": 0}}', details)
    place = f"Step {step!r}" if item is None else f"Item {item} of step {step!r}"
    return StepNotWaiting(f"{place} does not wait for an approval", details)
