"""Inputs of a run as they are typed: ``NAME=VALUE``, read as the type that the workflow wants."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sandgate.cli.exits import WrongUsage
from sandgate.core.workflow import InputType


def split_inputs(given: Sequence[str]) -> dict[str, str]:
    """The texts by their names. Raises ``WrongUsage`` for one without ``=``, and for a name given twice."""
    texts: dict[str, str] = {}
    for each in given:
        name, separator, text = each.partition("=")
        if not separator or not name:
            raise WrongUsage(f"--input {each!r} is not written as NAME=VALUE")
        if name in texts:
            raise WrongUsage(f"--input {name} is given twice")
        texts[name] = text
    return texts


def read_inputs(texts: Mapping[str, str], definition: Mapping[str, Any]) -> dict[str, Any]:
    """The values: a text where the workflow wants one, JSON for any other type.

    What the workflow does not know stays a text, so that the server says what is wrong. Raises ``WrongUsage``.
    """
    declared = definition.get("inputs")
    types = declared if isinstance(declared, dict) else {}
    return {name: _read(name, text, types.get(name)) for name, text in texts.items()}


def _read(name: str, text: str, declared: Any) -> Any:
    wanted = declared.get("type", InputType.STRING) if isinstance(declared, dict) else InputType.STRING
    if wanted == InputType.STRING:
        return text
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise WrongUsage(
            f"--input {name}: {text[:80]!r} is not written in JSON, as a value of type {wanted} is"
        ) from None


def _refuse(constant: str) -> None:
    raise ValueError(constant)
