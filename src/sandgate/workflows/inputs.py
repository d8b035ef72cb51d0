"""Inputs of a workflow: their definitions, and whether what a run is given fits them."""

import re
from collections.abc import Mapping

from sandgate.core.errors import InvalidRequest
from sandgate.core.workflow import InputDefinition, InputType, Json, WorkflowDefinition
from sandgate.workflows import names
from sandgate.workflows.expressions import kind
from sandgate.workflows.fields import Fields
from sandgate.workflows.problems import Problems
from sandgate.workflows.suggestions import shown, suggest

INPUT_KEYS = ("type", "required", "default", "description")

WANTED = {
    InputType.STRING: "a text",
    InputType.NUMBER: "a number",
    InputType.INTEGER: "a whole number",
    InputType.BOOLEAN: "true or false",
    InputType.OBJECT: "an object",
    InputType.ARRAY: "a list",
}
"""The types in words."""


def read_inputs(owner: Fields, problems: Problems) -> dict[str, InputDefinition]:
    """The member ``inputs`` of a definition."""
    members = owner.mapping("inputs", names.MAX_INPUTS)
    fields = Fields(members, owner.at("inputs"), problems, tuple(members))
    inputs: dict[str, InputDefinition] = {}
    for name in members:
        if not re.fullmatch(names.INPUT_NAME, name):
            fields.refuse(name, "An input's name has 1 to 63 letters, digits, _ and -, and starts with a letter or _")
        inputs[name] = _read_input(Fields(members[name], fields.at(name), problems, INPUT_KEYS))
    return inputs


def _read_input(fields: Fields) -> InputDefinition:
    type_ = InputType(fields.choice("type", tuple(InputType)) or InputType.STRING)
    required = fields.boolean("required") or False
    if required and "default" in fields:
        fields.refuse("default", "A required input is always given; leave out `default` or `required`")
    if "default" in fields and not fits(fields.raw("default"), type_):
        fields.refuse("default", f"has to be {WANTED[type_]}, not {kind(fields.raw('default'))}")
    description = fields.text("description", names.MAX_DESCRIPTION) or ""
    return InputDefinition(type_, required, "default" in fields, fields.raw("default"), description)


def fits(value: Json, type_: InputType) -> bool:
    """Whether a value is of a type. A whole number may be written as 3.0; a boolean is no number."""
    match type_:
        case InputType.STRING:
            return isinstance(value, str)
        case InputType.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case InputType.INTEGER:
            return fits(value, InputType.NUMBER) and value == value // 1
        case InputType.BOOLEAN:
            return isinstance(value, bool)
        case InputType.OBJECT:
            return isinstance(value, dict)
        case InputType.ARRAY:
            return isinstance(value, list)


def check_inputs(definition: WorkflowDefinition, given: Json) -> dict[str, Json]:
    """The inputs of a run, complete: defaults are filled in, an optional one that is not given is null.

    Raises ``InvalidRequest`` that names every input that is missing, unknown or of a wrong type.
    """
    if given is not None and not isinstance(given, dict):
        raise InvalidRequest.for_fields([("inputs", f"has to be an object, not {kind(given)}")])
    values: Mapping[str, Json] = given or {}
    known = definition.inputs
    problems = [(f"inputs.{name}"[: names.MAX_NAME], _unknown(name, known)) for name in values if name not in known]
    for name, expected in known.items():
        problem = _find_problem(expected, values, name)
        if problem:
            problems.append((f"inputs.{name}", problem))
    if problems:
        raise InvalidRequest.for_fields(problems[: names.MAX_INPUTS])
    return {name: _value(expected, values, name) for name, expected in known.items()}


def _unknown(name: str, known: Mapping[str, InputDefinition]) -> str:
    hint = suggest(name, known) or "it takes none"
    return f"The workflow has no input {shown(name)}; {hint}"


def _find_problem(expected: InputDefinition, values: Mapping[str, Json], name: str) -> str | None:
    if name not in values:
        return f"is required; it has to be {WANTED[expected.type]}" if expected.required else None
    value = values[name]
    optional = not expected.required and not expected.has_default
    if fits(value, expected.type) or (optional and value is None):
        return None
    return f"has to be {WANTED[expected.type]}, not {kind(value)}"


def _value(expected: InputDefinition, values: Mapping[str, Json], name: str) -> Json:
    value = values.get(name, expected.default)
    return int(value) if expected.type is InputType.INTEGER and value is not None else value
