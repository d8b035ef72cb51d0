"""The parts of a definition that stand in more than one place: time limits, retries, variables, templates."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sandgate.core.workflow import Json, RetryPolicy
from sandgate.workflows import names
from sandgate.workflows.expressions import kind
from sandgate.workflows.fields import Fields
from sandgate.workflows.reading import Reading
from sandgate.workflows.suggestions import shown
from sandgate.workflows.uses import Scope

RETRY_KEYS = ("max_attempts", "delay", "backoff", "max_delay", "on")


def read_retry(owner: Fields, reading: Reading, base: RetryPolicy | None) -> RetryPolicy | None:
    """The member ``retry`` over ``base``; ``base`` itself when it is absent."""
    if "retry" not in owner:
        return base
    fields = Fields(owner.raw("retry"), owner.at("retry"), reading.problems, RETRY_KEYS)
    policy = base or RetryPolicy(max_attempts=names.RETRY_ATTEMPTS)
    given: dict[str, Any] = {
        "max_attempts": fields.whole("max_attempts", 1, names.MAX_ATTEMPTS),
        "delay_s": fields.number("delay", 0, names.LONGEST_DELAY_S),
        "backoff": fields.number("backoff", 1, names.LARGEST_BACKOFF),
        "max_delay_s": fields.number("max_delay", 0, names.LONGEST_DELAY_S),
        "on": _reasons(fields),
    }
    return replace(policy, **{key: value for key, value in given.items() if value is not None})


def _reasons(fields: Fields) -> frozenset[str] | None:
    if "on" not in fields:
        return None
    reasons: Sequence[Json] = fields.items("on", len(names.RETRY_REASONS))
    for index, reason in enumerate(reasons):
        if reason not in names.RETRY_REASONS:
            allowed = ", ".join(map(shown, names.RETRY_REASONS))
            fields.problems.add(f"{fields.at('on')}/{index}", f"has to be one of {allowed}")
    return frozenset(reason for reason in reasons if isinstance(reason, str))


def read_variables(owner: Fields, reading: Reading, scope: Scope) -> Mapping[str, Json]:
    """The member ``env``: names of environment variables and texts, numbers or booleans."""
    variables = owner.mapping("env", names.MAX_VARIABLES)
    fields = Fields(variables, owner.at("env"), reading.problems, tuple(variables))
    for name, value in variables.items():
        if not re.fullmatch(names.VARIABLE_NAME, name):
            fields.refuse(name, "A variable's name has letters, digits and _ only, and does not start with a digit")
        elif name.upper().startswith(names.RESERVED_VARIABLES):
            fields.refuse(name, f"Names that start with {names.RESERVED_VARIABLES} are set by the service")
        if value is None or isinstance(value, list | dict):
            fields.refuse(name, f"has to be a text, a number or a boolean, not {kind(value)}")
        elif isinstance(value, str) and "\x00" in value:
            fields.refuse(name, "has a NUL character")
        else:
            reading.uses.add_value(fields.at(name), value, scope)
    return variables


def read_template(owner: Fields, reading: Reading) -> str | None:
    """The member ``template``: a name that steps can use."""
    name = owner.text("template", names.MAX_LABEL, least=1)
    problem = None if name is None or reading.templates is None else reading.templates(name)
    if problem is not None:
        owner.refuse("template", problem)
    return name
