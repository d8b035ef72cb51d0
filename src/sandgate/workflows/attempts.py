"""One attempt of a step with code: what it is given, and what its end means."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from sandgate.core.errors import ExpressionError, MechanismFault, RequestRefused
from sandgate.core.execution import ErrorReport, StepData, Termination
from sandgate.core.run import StepResult, StepRun, StepStatus
from sandgate.core.states import ExecutionStatus
from sandgate.core.workflow import Json, StepDefinition
from sandgate.workflows.base import Place
from sandgate.workflows.collecting import Leftovers
from sandgate.workflows.contexts import attempt_context
from sandgate.workflows.expressions import MissingSecret, SecretValues, Work, render, render_text
from sandgate.workflows.live_output import LiveOutput
from sandgate.workflows.maskers import mask_apart
from sandgate.workflows.masking import MaskedStream, Masker, are_cut
from sandgate.workflows.state import Graph, RunState

MOST_INPUT_BYTES = 256 * 1024
DEFAULT_TIMEOUT_S = 60.0
_DEEPEST_OUTPUTS = 60
_LARGEST_INTEGER = 2**63 - 1

_MEANINGS = {
    ExecutionStatus.FAILED: (StepStatus.FAILED, "failed", "Failed", "the code failed"),
    ExecutionStatus.TIMED_OUT: (StepStatus.TIMED_OUT, "timed_out", "TimedOut", "the step took longer than it may"),
    ExecutionStatus.OUT_OF_MEMORY: (StepStatus.FAILED, "out_of_memory", "OutOfMemory", "the memory was used up"),
    ExecutionStatus.OUTPUT_LIMIT: (StepStatus.FAILED, "output_limit", "OutputLimit", "the code printed too much"),
    ExecutionStatus.CANCELLED: (StepStatus.CANCELLED, "cancelled", "Cancelled", "the step was cancelled"),
    ExecutionStatus.LOST: (StepStatus.FAILED, "lost", "Lost", "the sandbox ended under it"),
}


def prepare(graph: Graph, state: RunState, row: StepRun, secrets: SecretValues | None = None) -> StepData:
    """What the attempt is given. Raises ``ExpressionError`` that says what cannot be had.

    The message of one that is no ``MissingSecret`` may show a part of a secret.
    """
    step = graph.steps[row.step]
    context = attempt_context(graph, state, row, secrets)
    env: dict[str, str] = {}
    work = Work()
    for level in (graph.definition.env, step.env):
        context["env"] = dict(env)
        env.update({name: render_text(value, context, work) for name, value in level.items()})
    context["env"] = dict(env)
    inputs = render(step.config.get("inputs") or {}, context)
    size = len(json.dumps(inputs))
    if size > MOST_INPUT_BYTES:
        raise ExpressionError(f"The inputs are {size} bytes long as JSON; {MOST_INPUT_BYTES} is the most", 0)
    return StepData(inputs, env | _own_variables(row), language=step.config.get("language"))


def _own_variables(row: StepRun) -> dict[str, str]:
    place = row.step if row.item is None else f"{row.step}.{row.item}"
    return {
        "SANDGATE_RUN_ID": row.run_id,
        "SANDGATE_STEP": row.step,
        "SANDGATE_ATTEMPT": str(row.attempt),
        "SANDGATE_STEP_KEY": f"{row.run_id}.{place}",
    }


async def run_attempt(
    place: Place,
    step: StepDefinition,
    data: StepData,
    masker: Masker,
    output: LiveOutput,
    leftovers: Leftovers | None = None,
) -> StepResult:
    """Run it to its end; neither the answer nor the output shows a secret.

    Raises ``CancelledError`` once nothing of it runs any more.
    """
    output.filter_with(lambda: MaskedStream(masker))
    timeout_s = DEFAULT_TIMEOUT_S if step.timeout_s is None else step.timeout_s
    try:
        collect = None if leftovers is None else leftovers.collect
        ended = await place.execute(step.config["code"], timeout_s, data, output.tap, collect)
    except MechanismFault as fault:
        return StepResult(StepStatus.FAILED, "lost", error=ErrorReport("Lost", fault.message, ""))
    except RequestRefused as refusal:
        return failure("Refused", refusal.message)
    stdout_cut, stderr_cut = are_cut(ended)
    output.end(stdout_cut=stdout_cut, stderr_cut=stderr_cut)
    size = len(ended.stdout) + len(ended.stderr) + len(ended.outputs or b"")
    result = await mask_apart(
        masker,
        size,
        lambda: masker.mask_result(read_result(ended), stdout_cut=stdout_cut, stderr_cut=stderr_cut),
    )
    return result if leftovers is None else leftovers.added_to(result)


def explain(problem: ExpressionError, masker: Masker) -> StepResult:
    """The end of an attempt whose data cannot be had."""
    shown = problem.message if isinstance(problem, MissingSecret) else masker.mask_message(problem.message)
    return failure("ExpressionError", shown)


def failure(name: str, text: str, *, reason: str = "failed") -> StepResult:
    """The end of an attempt that could not be begun."""
    return StepResult(StepStatus.FAILED, reason, error=ErrorReport(name, text, ""))


def read_result(ended: Termination) -> StepResult:
    """What the end of the code means for the step."""
    facts: dict[str, Any] = {
        "stdout": ended.stdout.decode("utf-8", "replace"),
        "stderr": ended.stderr.decode("utf-8", "replace"),
        "exit_code": ended.exit_code,
        "duration_ms": round(ended.duration_s * 1000),
    }
    if ended.status is ExecutionStatus.COMPLETED:
        try:
            return StepResult(StepStatus.SUCCEEDED, "succeeded", outputs=parse_outputs(ended.outputs), **facts)
        except ValueError as problem:
            error = ErrorReport("OutputsInvalid", str(problem), "")
            return StepResult(StepStatus.FAILED, "failed", error=error, **facts)
    status, reason, name, text = _MEANINGS[ended.status]
    return StepResult(status, reason, error=ended.error or ErrorReport(name, text, ""), **facts)


def parse_outputs(data: bytes | None) -> Mapping[str, Json]:
    """What hostile code says are its outputs, as JSON that can be kept and sent. Raises ``ValueError``."""
    if data is None:
        raise ValueError("the outputs did not arrive; the code closed or flooded its channel")
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ValueError("the outputs are no JSON") from None
    if not isinstance(value, dict):
        raise ValueError("the outputs are no object")  # noqa: TRY004 - one kind of refusal
    cleaned: dict[str, Json] = _clean(value, _DEEPEST_OUTPUTS)
    return cleaned


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _clean(value: Json, depth: int) -> Json:
    """The value without what no encoding can carry. Raises ``ValueError`` for one that is too deep or large."""
    if depth == 0:
        raise ValueError(f"the outputs are nested deeper than {_DEEPEST_OUTPUTS} levels")
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-8", "replace").decode()
        case bool() | None:
            return value
        case int() if abs(value) > _LARGEST_INTEGER:
            raise ValueError("the outputs hold an integer of more than 64 bits")
        case float() if value in (float("inf"), float("-inf")):
            raise ValueError("the outputs hold a number that is too large")
        case list():
            return [_clean(item, depth - 1) for item in value]
        case dict():
            return {_clean(key, depth - 1): _clean(item, depth - 1) for key, item in value.items()}
        case _:
            return value
