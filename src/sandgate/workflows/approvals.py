"""Whether somebody may decide now about a step that waits for it."""

from sandgate.core.errors import Forbidden, StepNotWaiting
from sandgate.core.principal import Principal
from sandgate.core.run import StepRun
from sandgate.workflows.events import Decided
from sandgate.workflows.state import Graph, is_approvable


def check_may_decide(
    caller: Principal, graph: Graph, word: Decided, row: StepRun | None, whole: StepRun | None
) -> None:
    """``row`` is what the word is about, ``whole`` the row of the step that it belongs to.

    Raises ``StepNotWaiting``, ``Forbidden`` for somebody whom the step does not name.
    """
    if row is None or not is_approvable(graph, row):
        raise _not_waiting(graph, word, row, whole)
    approvers = graph.steps[word.step].config.get("approvers")
    if approvers and caller.name not in approvers:
        raise Forbidden(f"Step {word.step} is for others to decide: {', '.join(approvers)}")


def check_counted(word: Decided, row: StepRun | None) -> None:
    """``row`` is what the word was about, once it was acted on, or as it is when nobody has yet.

    Raises ``StepNotWaiting`` when the step has ended otherwise: by somebody else's word, its time or the run's end.
    """
    if row is not None and row.is_live:
        return
    said = {"approved": word.approved, "by": word.who, "comment": word.comment}
    outputs = {} if row is None else row.outputs or {}
    if row is None or any(outputs.get(key) != value for key, value in said.items()):
        details = {"status": None if row is None else row.status.value, "item": word.item, "items": None}
        text = f"Step {word.step!r} ended otherwise at the same moment; this decision does not count"
        raise StepNotWaiting(text, details)


def _not_waiting(graph: Graph, word: Decided, row: StepRun | None, whole: StepRun | None) -> StepNotWaiting:
    items = None if whole is None else whole.items
    status = None if word.step not in graph.steps else "pending" if row is None else row.status.value
    details = {"status": status, "item": word.item, "items": items}
    if items is not None and word.item is None:
        return StepNotWaiting(f'Step {word.step!r} is decided item by item; say which: {{"item": 0}}', details)
    place = f"Step {word.step!r}" if word.item is None else f"Item {word.item} of step {word.step!r}"
    return StepNotWaiting(f"{place} does not wait for an approval", details)
