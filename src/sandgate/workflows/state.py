"""What a run is made of while it is worked on: its graph, its rows, and what expressions see of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sandgate.core.clock import show_time
from sandgate.core.run import FAILED_STEP_STATUSES, Run, StepKey, StepRun, StepStatus
from sandgate.core.workflow import Json, StepDefinition, StepType, WorkflowDefinition
from sandgate.workflows.graph import find_ancestors
from sandgate.workflows.secret_names import find_secret_names


class Phase(StrEnum):
    """The parts of a definition, in the order in which they run."""

    MAIN = "steps"
    ON_ERROR = "on_error"
    FINAL = "finally"


class Graph:
    """A definition, laid out for the engine. It never changes; runs of one version may share it."""

    def __init__(self, definition: WorkflowDefinition) -> None:
        self.definition = definition
        self.phases: Mapping[Phase, Sequence[StepDefinition]] = {
            Phase.MAIN: definition.steps,
            Phase.ON_ERROR: definition.on_error,
            Phase.FINAL: definition.final,
        }
        self.steps = {step.name: step for steps in self.phases.values() for step in steps}
        self.phase_of = {step.name: phase for phase, steps in self.phases.items() for step in steps}
        self.secret_names = find_secret_names(definition)
        self.template_names = frozenset(_template_names(self.steps.values()))
        self._ancestors: Mapping[str, frozenset[str]] | None = None

    def ancestors(self, name: str) -> frozenset[str]:
        """Every step that the step waits for, directly or not."""
        if self._ancestors is None:
            self._ancestors = find_ancestors({step.name: step.needs for step in self.steps.values()})
        return self._ancestors[name]


def _template_names(steps: Iterable[StepDefinition]) -> Iterator[str]:
    """Those that steps with code name."""
    for step in steps:
        name = step.config.get("template")
        if step.type is StepType.CODE_EXECUTION and isinstance(name, str):
            yield name


@dataclass(frozen=True, slots=True)
class RunState:
    """A run with the rows of its steps; a step that has none is pending.

    ``output_bytes`` is how long the outputs of each step are, those of all its items together, and ``printed_bytes``
    how much all steps have printed, as far as that has been counted.
    """

    run: Run
    steps: Mapping[StepKey, StepRun]
    output_bytes: Mapping[str, int] = field(default_factory=dict)
    printed_bytes: int = 0


def has_failed(row: StepRun | None) -> bool:
    """Whether a step has ended badly."""
    return row is not None and row.status in FAILED_STEP_STATUSES


def is_over(row: StepRun | None) -> bool:
    """Whether a step has ended, in whatever way."""
    return row is not None and not row.is_live


def is_approvable(graph: Graph, row: StepRun) -> bool:
    """Whether the step, or this item of it, waits for somebody to decide."""
    step = graph.steps.get(row.step)
    return step is not None and step.type is StepType.APPROVAL and row.status is StepStatus.WAITING


def expression_context(graph: Graph, state: RunState) -> dict[str, Json]:
    """What expressions see: the run's inputs, and status and outputs of every step that has ended."""
    run = state.run
    return {
        "inputs": dict(run.inputs),
        "run": {
            "id": run.run_id,
            "workflow_id": run.workflow_id,
            "started_at": None if run.started_at is None else show_time(run.started_at),
            "scheduled_at": None if run.trigger_at is None else show_time(run.trigger_at),
        },
        "steps": {name: seen_step(state, name) for name in graph.steps if is_over(state.steps.get((name, None)))},
    }


def seen_step(state: RunState, name: str) -> Json:
    """What expressions see of a step that has ended."""
    row = state.steps[name, None]
    error = row.error
    shown = None if error is None else {"name": error.name, "value": error.value, "traceback": error.traceback}
    return {"status": row.status.value, "outputs": outputs_of(state, row), "error": shown}


def outputs_of(state: RunState, row: StepRun, omitted: frozenset[StepKey] = frozenset()) -> Json:
    """The outputs of a step: an object, or a list of one for each item when it has ``foreach``.

    None in the list stands for an item that did not succeed, and for one whose outputs are left out.
    """
    if row.items is None:
        return dict(row.outputs or {})
    items = (state.steps.get((row.step, index)) for index in range(row.items))
    return [None if item is not None and item.key in omitted else _item_outputs(item) for item in items]


def _item_outputs(row: StepRun | None) -> Json:
    """None for an item that did not succeed, so that places stay the same."""
    return dict(row.outputs or {}) if row is not None and row.status is StepStatus.SUCCEEDED else None
