"""What is shown of runs whose definition was accepted once, and is not any more."""

from collections.abc import Iterator

from sandgate.core.workflow import Json, StepDefinition, StepType, WorkflowDefinition


def outline(raw: Json) -> WorkflowDefinition:
    """The names and types of the steps, and nothing that could be run. Raises nothing, whatever stands there."""
    fields = raw if isinstance(raw, dict) else {}
    steps, on_error, final = (tuple(_steps(fields.get(key))) for key in ("steps", "on_error", "finally"))
    return WorkflowDefinition(str(fields.get("name", "")), steps, on_error=on_error, final=final)


def _steps(raw: Json) -> Iterator[StepDefinition]:
    for step in raw if isinstance(raw, list) else ():
        if isinstance(step, dict) and step.get("type") in list(StepType) and isinstance(step.get("name"), str):
            yield StepDefinition(step["name"], StepType(step["type"]), (), {})
