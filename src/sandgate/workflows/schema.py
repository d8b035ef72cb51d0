"""The form of a definition as JSON Schema, for editors, for those who generate definitions, and for ``form``.

It says what stands where, and no definition is accepted that does not fit it. What goes beyond form only the parser
says: the grammar of expressions and what they name, steps that are named twice or wait in a circle, times, and that a
shared workspace is made from one template. A test holds the two together on all else. What stands as ``description``
beside a rule ends the sentence "has to be …".
Source: JSON Schema, draft 2020-12.
"""

from collections.abc import Mapping, Sequence

from sandgate.core.workflow import InputType, Json, StepType
from sandgate.workflows import names

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

# A text that stands where another type is wanted has to be one whole expression.
_WHOLE_EXPRESSION = {"type": "string", "pattern": r"^\s*\$\{\{[\s\S]*\}\}\s*$"}

_VARIABLE_RULE = "letters, digits and _, start with no digit, and not with SANDGATE_"
_SECONDS_RULE = "a number of seconds, or one whole ${{ … }}"
_TIME_RULE = "a time with its offset, as in 2026-01-31T08:00:00Z, or a text with ${{ … }}"
_ADDRESS_RULE = "an address that starts with https:// or http://, without a user and a password"


def definition_schema() -> dict[str, Json]:
    """The schema, as a new value that the caller may change."""
    return {
        "$schema": SCHEMA_DIALECT,
        "title": "A workflow of sandgate",
        **_object(
            {
                "name": _named(names.WORKFLOW_NAME, names.WORKFLOW_NAME_RULE),
                "description": _text(names.MAX_DESCRIPTION),
                "inputs": {**_map({"$ref": "#/$defs/input"}, names.MAX_INPUTS), "propertyNames": _input_name()},
                "env": {"$ref": "#/$defs/env"},
                "defaults": {"$ref": "#/$defs/defaults"},
                "concurrency": _concurrency(),
                "timeout": _number(names.SHORTEST_TIMEOUT_S, names.LONGEST_WAIT_S),
                "workspace": {"enum": ["run", "step"]},
                "steps": {"$ref": "#/$defs/steps", "minItems": 1},
                "on_error": {"$ref": "#/$defs/steps"},
                "finally": {"$ref": "#/$defs/steps"},
                "outputs": {**_map(True, names.MAX_OUTPUTS), "propertyNames": _input_name()},
            },
            required=("name", "steps"),
        ),
        "$defs": {
            "input": _input(),
            "env": _env(),
            "retry": _retry(),
            "defaults": _defaults(),
            "steps": {"type": "array", "maxItems": names.MAX_STEPS, "items": {"$ref": "#/$defs/step"}},
            "step": _step(),
            **{f"config_{type_}": _CONFIGS[type_]() for type_ in StepType},
        },
    }


def _object(properties: Mapping[str, Json], required: Sequence[str] = (), **more: Json) -> dict[str, Json]:
    closed = {"type": "object", "properties": dict(properties), "additionalProperties": False, **more}
    return {**closed, "required": list(required)} if required else closed


def _map(value: Json, most: int) -> dict[str, Json]:
    return {"type": "object", "additionalProperties": value, "maxProperties": most}


def _named(pattern: str, rule: str) -> dict[str, Json]:
    return {"type": "string", "pattern": f"^(?:{pattern})$", "description": rule}


def _input_name() -> dict[str, Json]:
    return _named(names.INPUT_NAME, names.INPUT_NAME_RULE)


def _text(most: int, least: int = 0) -> dict[str, Json]:
    return {"type": "string", "maxLength": most, **({"minLength": least} if least else {})}


def _number(least: float, most: float) -> dict[str, Json]:
    return {"type": "number", "minimum": least, "maximum": most}


def _integer(least: int, most: int) -> dict[str, Json]:
    return {"type": "integer", "minimum": least, "maximum": most}


def _input() -> dict[str, Json]:
    properties = {
        "type": {"enum": [type_.value for type_ in InputType], "default": "string"},
        "required": {"type": "boolean", "default": False},
        "default": True,
        "description": _text(names.MAX_DESCRIPTION),
    }
    typed = [_default_of(type_) for type_ in InputType]
    untyped = {"if": {"not": {"required": ["type"]}}, "then": {"properties": {"default": {"type": "string"}}}}
    contradiction = {
        "required": ["default", "required"],
        "properties": {"required": {"const": True}},
        "description": "required, and have a default",
    }
    return _object(properties, allOf=[*typed, untyped, {"not": contradiction}])


def _default_of(type_: InputType) -> dict[str, Json]:
    is_this = {"required": ["type"], "properties": {"type": {"const": type_.value}}}
    return {"if": is_this, "then": {"properties": {"default": {"type": type_.value}}}}


def _env() -> dict[str, Json]:
    variables = _map({"type": ["string", "number", "boolean"]}, names.MAX_VARIABLES)
    pattern = f"^(?!{_any_case(names.RESERVED_VARIABLES)})(?:{names.VARIABLE_NAME})$"
    return {**variables, "propertyNames": {"pattern": pattern, "description": _VARIABLE_RULE}}


def _any_case(text: str) -> str:
    return "".join(f"[{letter.upper()}{letter.lower()}]" if letter.isalpha() else letter for letter in text)


def _retry() -> dict[str, Json]:
    return _object(
        {
            "max_attempts": {**_integer(1, names.MAX_ATTEMPTS), "default": names.RETRY_ATTEMPTS},
            "delay": {**_number(0, names.LONGEST_DELAY_S), "default": 0},
            "backoff": {**_number(1, names.LARGEST_BACKOFF), "default": 2},
            "max_delay": {**_number(0, names.LONGEST_DELAY_S), "default": 300},
            "on": {
                "type": "array",
                "items": {"enum": list(names.RETRY_REASONS)},
                "maxItems": len(names.RETRY_REASONS),
            },
        }
    )


def _defaults() -> dict[str, Json]:
    return _object(
        {
            "template": _text(names.MAX_LABEL, 1),
            "timeout": _number(names.SHORTEST_TIMEOUT_S, names.LONGEST_WORK_S),
            "retry": {"$ref": "#/$defs/retry"},
            "env": {"$ref": "#/$defs/env"},
        }
    )


def _concurrency() -> dict[str, Json]:
    limit = {**_integer(1, names.MAX_CONCURRENCY), "default": 1}
    return _object({"group": _text(names.MAX_GROUP, 1), "limit": limit}, required=("group",))


def _step() -> dict[str, Json]:
    properties = {
        "name": _named(names.STEP_NAME, names.STEP_NAME_RULE),
        "type": {"enum": [type_.value for type_ in StepType]},
        "config": {"type": "object"},
        "needs": {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "maxItems": names.MAX_STEPS},
        "if": {"type": ["string", "boolean"]},
        "foreach": {"type": ["string", "array"], "maxItems": names.MAX_ITEMS},
        "strategy": _object({"max_parallel": _integer(1, names.MAX_PARALLEL)}),
        "timeout": _number(names.SHORTEST_TIMEOUT_S, names.LONGEST_WAIT_S),
        "retry": {"$ref": "#/$defs/retry"},
        "env": {"$ref": "#/$defs/env"},
    }
    typed = [_rules_of(type_) for type_ in StepType]
    return _object(properties, ("name", "type"), dependentRequired={"strategy": ["foreach"]}, allOf=typed)


def _rules_of(type_: StepType) -> dict[str, Json]:
    """What holds for steps of one type only."""
    rules: dict[str, Json] = {"config": {"$ref": f"#/$defs/config_{type_}"}}
    if type_ in names.WORKING_TYPES:
        rules["timeout"] = {"maximum": names.LONGEST_WORK_S}
    if type_ not in names.RETRIED_TYPES:
        rules["retry"] = False
    if type_ is not StepType.CODE_EXECUTION:
        rules["env"] = False
    required = [] if type_ is StepType.APPROVAL else ["config"]
    is_this = {"required": ["type"], "properties": {"type": {"const": type_.value}}}
    return {"if": is_this, "then": {"properties": rules, "required": required}}


def _code_config() -> dict[str, Json]:
    properties = {
        "code": {"type": "string"},
        "language": _named(names.LANGUAGE, names.LANGUAGE_RULE),
        "template": _text(names.MAX_LABEL, 1),
        "environment_id": _text(names.MAX_ADDRESS, 1),
        "inputs": {"type": "object", "maxProperties": names.MAX_INPUTS},
    }
    both = {"required": ["template", "environment_id"], "description": "given both a template and an environment"}
    return {**_object(properties, ("code",)), "not": both}


def _http_config() -> dict[str, Json]:
    header = {"type": "string", "pattern": r"^[^\r\n\u0000]*$", "description": "one line"}
    address = {"pattern": r"^(https?://(?![^/?#]*@)|\$\{\{)", "description": _ADDRESS_RULE}
    properties = {
        "method": {"enum": list(names.HTTP_METHODS), "default": "GET"},
        "url": {**_text(names.MAX_ADDRESS, 1), **address},
        "headers": {**_map(header, names.MAX_HEADERS), "propertyNames": _header_name()},
        "body": True,
        "expect": {"type": "array", "items": _integer(100, 599), "maxItems": names.MAX_STATUSES},
    }
    return _object(properties, ("url",))


def _header_name() -> dict[str, Json]:
    own = "|".join(map(_any_case, sorted(names.OWN_HEADERS)))
    rule = f"that of a header, and none of {', '.join(sorted(names.OWN_HEADERS))}"
    return {"pattern": f"^(?!(?:{own})$)(?:{names.HEADER_NAME})$", "description": rule}


def _sleep_config() -> dict[str, Json]:
    seconds = {"anyOf": [_number(0, names.LONGEST_SLEEP_S), _WHOLE_EXPRESSION], "description": _SECONDS_RULE}
    times = [{"type": "string", "format": "date-time"}, {"type": "string", "pattern": r"\$\{\{"}]
    until = {"anyOf": times, "description": _TIME_RULE}
    either = [{"required": ["seconds"]}, {"required": ["until"]}]
    rule = "an object with either `seconds` or `until`"
    return _object({"seconds": seconds, "until": until}, oneOf=either, description=rule)


def _approval_config() -> dict[str, Json]:
    users = {"type": "array", "items": _text(names.MAX_LABEL, 1), "minItems": 1, "maxItems": names.MAX_APPROVERS}
    return _object({"message": _text(names.MAX_DESCRIPTION), "approvers": users})


def _workflow_config() -> dict[str, Json]:
    identifier = _named(f"{names.WORKFLOW_ID}|{names.SELF}", names.WORKFLOW_ID_RULE)
    inputs = {"type": "object", "maxProperties": names.MAX_INPUTS}
    return _object({"workflow_id": identifier, "inputs": inputs}, ("workflow_id",))


_CONFIGS = {
    StepType.CODE_EXECUTION: _code_config,
    StepType.HTTP: _http_config,
    StepType.SLEEP: _sleep_config,
    StepType.APPROVAL: _approval_config,
    StepType.WORKFLOW: _workflow_config,
}
