"""Which secrets a definition names. The parser has seen to it that each is named in full."""

from collections.abc import Iterator, Mapping

from sandgate.core.workflow import Json, WorkflowDefinition
from sandgate.workflows.expressions import OPENING, Template, references

_PLACES = ("inputs", "url", "headers", "body")


def find_secret_names(definition: WorkflowDefinition) -> frozenset[str]:
    """The names, from wherever in the definition they stand."""
    steps = (*definition.steps, *definition.on_error, *definition.final)
    values: list[Json] = [definition.env]
    for step in steps:
        values += [step.env, *(step.config.get(key) for key in _PLACES)]
    return frozenset(name for value in values for name in _find(value))


def _find(value: Json | Mapping[str, Json]) -> Iterator[str]:
    if isinstance(value, str) and OPENING in value:
        for part in Template.parse(value).expressions:
            yield from (str(path[1]) for path in references(part.expression) if path[0] == "secrets")
    elif isinstance(value, list):
        for item in value:
            yield from _find(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _find(item)
