"""The published schema and the parser accept the same definitions, but for what the schema says that it leaves out."""

import copy
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from sandgate.core.errors import InvalidDefinition
from sandgate.workflows.definition import parse_definition
from sandgate.workflows.schema import definition_schema
from tests.unit.workflows.definitions import VALID, WRONG_FORM

SCHEMA = Draft202012Validator(definition_schema())
ROUNDS = 80
Path = tuple[str | int, ...]

# What a mutation puts in the place of a value: of each kind, at and beyond bounds, and of things that mean something.
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 3, 2.0, 1.5, 0.1, 100, 101, 1000, 1001, 86_400, 86_401, 31_622_400, 31_622_401, "",
    "a", "run", "step", "self", "1a", "a b", "x" * 129, "x" * 2001, "GET", "string", "integer", "sleep", "approval",
    "http", "workflow", "code_execution", "https://example.com", "https://u@x/", "ftp://x", "lost",
    "2026-01-31T08:00:00Z", "${{ run.id }}", " ${{ 1 }} ", "a ${{ 1 }}", [], ["a"], ["lost"], [1, 2], [{}], {},
    {"a": 1}, {"A": "b"},
]  # fmt: skip
KEYS = (
    "name", "type", "config", "needs", "if", "foreach", "strategy", "timeout", "retry", "env", "code", "language",
    "template", "on", "environment_id", "inputs", "url", "method", "headers", "body", "expect", "seconds", "until",
    "message", "approvers", "workflow_id", "max_parallel", "max_attempts", "delay", "backoff", "max_delay", "group",
    "limit", "default", "required", "description", "defaults", "concurrency", "workspace", "steps", "on_error",
    "finally", "outputs", "unknown", "",
)  # fmt: skip

# What only the parser sees, by a part of what it says: it goes beyond where what stands. Each has its test elsewhere.
BEYOND_FORM = re.compile(
    r"""
    .*\(at\ character\ \d+\)            # expressions: their grammar, and whether what they name is there
    | The\ step\ at\ \S+\ has\ this\ name\ already
    | There\ is\ no\ step\ .*
    | A\ step\ cannot\ wait\ for\ itself.*
    | These\ steps\ wait\ for\ each\ other\ in\ a\ circle:.*
    | has\ to\ be\ a\ time\ with\ its\ offset,.*  # a format, which validators may know or not
    | .*shared\ workspace.*
    """,
    re.VERBOSE | re.DOTALL,
)


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _paths(item, (*path, key))


def _mutate(raw: Any, chance: random.Random) -> Any:
    """The same with something else in one place, something less, or something more."""
    raw = copy.deepcopy(raw)
    paths = [path for path in _paths(raw) if path]
    if not paths:
        return raw
    path = chance.choice(paths)
    holder = raw
    for key in path[:-1]:
        holder = holder[key]
    value = holder[path[-1]]
    match chance.randrange(4):
        case 0:
            del holder[path[-1]]
        case 1 if isinstance(value, dict):
            value[chance.choice(KEYS)] = copy.deepcopy(chance.choice(VALUES))
        case 1 if isinstance(value, list):
            value.append(copy.deepcopy(chance.choice([*VALUES, *value])))
        case _:
            holder[path[-1]] = copy.deepcopy(chance.choice(VALUES))
    return raw


def _problems(raw: Any) -> list[tuple[str, str]]:
    try:
        parse_definition(raw)
    except InvalidDefinition as refused:
        return list(refused.problems)
    return []


@pytest.mark.parametrize("seed", range(10))
def test_schema_and_parser_agree(seed: int) -> None:
    """On right definitions after one, two or three changes: what one of them refuses, the other does too."""
    chance = random.Random(seed)
    accepted = refused = 0
    for _round in range(ROUNDS):
        raw = chance.choice(VALID)
        for _change in range(chance.choice((1, 1, 2, 3))):
            raw = _mutate(raw, chance)
        problems = _problems(raw)
        of_form = [problem for _pointer, problem in problems if not BEYOND_FORM.fullmatch(problem)]
        complaints = [error.message[:200] for error in SCHEMA.iter_errors(raw)]
        assert bool(of_form) == bool(complaints), f"{raw}\nparser: {problems}\nschema: {complaints}"
        accepted += not problems
        refused += bool(complaints)
    # Otherwise the mutations would try little.
    assert accepted >= ROUNDS // 20
    assert refused >= ROUNDS // 3


def test_what_goes_beyond_form_is_only_that() -> None:
    """None of what the schema has to refuse is excused by the list above."""
    for raw, _pointers in WRONG_FORM:
        assert not all(BEYOND_FORM.fullmatch(problem) for _pointer, problem in _problems(raw)), raw
