"""What a step's own expressions decide about it: whether it runs, over which items, for how long it sleeps.

And what a run leaves in the end.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from sandgate.core.errors import ExpressionError
from sandgate.core.workflow import Json, StepDefinition, WorkflowDefinition
from sandgate.workflows.expressions import (
    StatusFunctions,
    Work,
    evaluate,
    evaluate_condition,
    parse,
    render,
    render_text,
    strip_braces,
    uses_status,
)
from sandgate.workflows.names import LONGEST_SLEEP_S, LONGEST_WAIT_S, MAX_DESCRIPTION

MOST_ITEMS = 1000
MOST_ITEMS_OF_RUN = 10_000
MOST_DATA_BYTES = 256 * 1024
MOST_ITEM_BYTES = 16 * 1024 * 1024
"""Outputs of all items of a step together, which are in memory as long as the run is worked on."""
MOST_RUN_BYTES = 64 * 1024 * 1024
"""Outputs of all steps of a run together."""
MOST_PRINTED_BYTES = 256 * 1024 * 1024
"""What all steps of a run may have printed and is kept, together."""


def wants_to_run(
    step: StepDefinition, status: StatusFunctions, context: Mapping[str, Json], work: Work, *, is_final: bool
) -> bool:
    """Whether the step is to run, now that what it needs is over. Raises ``ExpressionError``.

    Without a word of its own it runs when all that it needs succeeded; in ``finally`` always.
    """
    if step.condition is None:
        return is_final or status.success
    condition = parse(step.condition)
    if is_final and not uses_status(condition):
        status = StatusFunctions(True, status.failure, status.cancelled)
    return evaluate_condition(condition, context, status, work)


def foreach_items(step: StepDefinition, context: Mapping[str, Json], work: Work | None = None) -> list[Json]:
    """What the step is run for, one by one. Raises ``ExpressionError``."""
    given = step.foreach
    if isinstance(given, str):
        items = evaluate(parse(strip_braces(given)), context, work=work)
    else:
        items = render(given, context, work)
    if not isinstance(items, list):
        raise ExpressionError("foreach has to be a list", 0)
    if len(items) > MOST_ITEMS:
        raise ExpressionError(f"foreach has {len(items)} items; {MOST_ITEMS} is the most", 0)
    return items


def foreach_item(step: StepDefinition, context: Mapping[str, Json], index: int, work: Work | None = None) -> Json:
    """One of :func:`foreach_items`, without making the others where they stand in the definition."""
    if isinstance(step.foreach, list):
        return render(step.foreach[index], context, work)
    return foreach_items(step, context, work)[index]


def sleep_until(step: StepDefinition, context: Mapping[str, Json], now: datetime, work: Work) -> datetime:
    """When the step wakes up; a moment that has passed wakes it at once. Raises ``ExpressionError``."""
    if "until" in step.config:
        moment = _time(render(step.config["until"], context, work))
        if moment > now + timedelta(seconds=LONGEST_WAIT_S):
            raise ExpressionError(f"until is more than {LONGEST_WAIT_S // 86_400} days ahead", 0)
        return moment
    seconds = render(step.config.get("seconds"), context, work)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_SLEEP_S:
        raise ExpressionError(f"seconds has to be a number from 0 to {LONGEST_SLEEP_S}", 0)
    return now + timedelta(seconds=seconds)


def sleep_limit(step: StepDefinition, began: datetime) -> datetime | None:
    """The first moment that is later than the step may sleep; one that it wakes up at means that it sleeps too long."""
    if step.timeout_s is None:
        return None
    return began + timedelta(seconds=step.timeout_s) + timedelta.resolution


def approval_question(step: StepDefinition, context: Mapping[str, Json], work: Work) -> Mapping[str, Json] | None:
    """What whoever decides is to read, cut where it is too long. Raises ``ExpressionError``."""
    message = step.config.get("message")
    if not isinstance(message, str):
        return None
    text = render_text(message, context, work)
    return {"message": text if len(text) <= MAX_DESCRIPTION else f"{text[:MAX_DESCRIPTION]}…"}


def run_outputs(definition: WorkflowDefinition, context: Mapping[str, Json]) -> Mapping[str, Json]:
    """What a run that succeeded leaves. Raises ``ExpressionError``, also for what is too large."""
    outputs: dict[str, Json] = render(definition.outputs, context)
    check_size("outputs of the run", outputs)
    return outputs


def check_size(what: str, value: Json) -> None:
    """Raises ``ExpressionError`` for more than is handed from step to step."""
    size = len(json.dumps(value))
    if size > MOST_DATA_BYTES:
        raise ExpressionError(f"The {what} are {size} bytes long as JSON; {MOST_DATA_BYTES} is the most", 0)


def _time(text: Json) -> datetime:
    try:
        moment = datetime.fromisoformat(str(text))
        found = None if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        found = None
    if found is None:
        raise ExpressionError("until has to be a time with its offset, as in 2026-01-31T08:00:00Z", 0)
    return found
