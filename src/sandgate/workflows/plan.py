"""What a definition would do, for a look before it is started."""

from collections.abc import Sequence
from dataclasses import dataclass

from sandgate.core.workflow import Json, StepDefinition, WorkflowDefinition
from sandgate.workflows.graph import find_levels


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step of a plan; ``level`` counts from 0 within its list, and steps of one level may run side by side.

    ``per_item`` says that it runs once for each element of a list, ``max_parallel`` of them at once.
    """

    name: str
    type: str
    level: int
    needs: tuple[str, ...]
    conditional: bool
    per_item: bool
    max_parallel: int | None
    max_attempts: int
    timeout_s: float | None

    def as_json(self) -> dict[str, Json]:
        """The step as an answer shows it."""
        return {
            "name": self.name,
            "type": self.type,
            "level": self.level,
            "needs": list(self.needs),
            "conditional": self.conditional,
            "foreach": self.per_item,
            "max_parallel": self.max_parallel,
            "max_attempts": self.max_attempts,
            "timeout": self.timeout_s,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of each list in an order in which they may run."""

    steps: tuple[PlannedStep, ...]
    on_error: tuple[PlannedStep, ...] = ()
    final: tuple[PlannedStep, ...] = ()

    @property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        """The names of ``steps`` in rounds: what stands in one round may run side by side."""
        rounds: dict[int, list[str]] = {}
        for step in self.steps:
            rounds.setdefault(step.level, []).append(step.name)
        return tuple(tuple(names) for _, names in sorted(rounds.items()))

    def as_json(self) -> dict[str, Json]:
        """The plan as an answer shows it."""
        return {
            "steps": [step.as_json() for step in self.steps],
            "levels": [list(names) for names in self.levels],
            "on_error": [step.as_json() for step in self.on_error],
            "finally": [step.as_json() for step in self.final],
        }


def make_plan(definition: WorkflowDefinition) -> Plan:
    """The plan of a definition that has been parsed."""
    return Plan(_planned(definition.steps), _planned(definition.on_error), _planned(definition.final))


def _planned(steps: Sequence[StepDefinition]) -> tuple[PlannedStep, ...]:
    by_name = {step.name: step for step in steps}
    levels = find_levels({step.name: step.needs for step in steps})
    return tuple(_planned_step(by_name[name], level) for level, names in enumerate(levels) for name in names)


def _planned_step(step: StepDefinition, level: int) -> PlannedStep:
    return PlannedStep(
        name=step.name,
        type=step.type.value,
        level=level,
        needs=step.needs,
        conditional=step.condition is not None,
        per_item=step.foreach is not None,
        max_parallel=step.max_parallel,
        max_attempts=step.retry.max_attempts,
        timeout_s=step.timeout_s,
    )
