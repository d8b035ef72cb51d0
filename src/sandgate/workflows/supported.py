"""What the language has and this engine does not run yet: refused before anything depends on it."""

from collections.abc import Iterator, Mapping

from sandgate.core.errors import InvalidDefinition
from sandgate.core.workflow import Json, StepDefinition, WorkflowDefinition
from sandgate.workflows.expressions import OPENING, Template, references
from sandgate.workflows.problems import below


def check_supported(definition: WorkflowDefinition) -> None:
    """Raises ``InvalidDefinition`` with everything that cannot be run yet."""
    problems = list(_find(definition))
    if problems:
        raise InvalidDefinition(problems)


def _find(definition: WorkflowDefinition) -> Iterator[tuple[str, str]]:
    if _names_secret(definition.env):
        yield "/env", "Secrets are not supported yet"
    for key, steps in (("steps", definition.steps), ("on_error", definition.on_error), ("finally", definition.final)):
        for index, step in enumerate(steps):
            yield from _find_in_step(below("", key, index), step)


def _find_in_step(pointer: str, step: StepDefinition) -> Iterator[tuple[str, str]]:
    if _names_secret(step.env):
        yield f"{pointer}/env", "Secrets are not supported yet"
    for key in ("inputs", "url", "headers", "body"):
        if _names_secret(step.config.get(key)):
            yield f"{pointer}/config/{key}", "Secrets are not supported yet"


def _names_secret(value: Json | Mapping[str, Json]) -> bool:
    if isinstance(value, str):
        expressions = Template.parse(value).expressions if OPENING in value else ()
        return any(path[0] == "secrets" for part in expressions for path in references(part.expression))
    if isinstance(value, list):
        return any(map(_names_secret, value))
    return isinstance(value, Mapping) and any(map(_names_secret, value.values()))
