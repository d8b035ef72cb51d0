"""The published schema is used: what it refuses is refused, in words of its own, and never said twice."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.core.errors import InvalidDefinition
from sandgate.core.run import RunStatus
from sandgate.workflows import form as form_module
from sandgate.workflows.definition import parse_definition
from sandgate.workflows.form import Form, definition_form
from sandgate.workflows.problems import MAX_PROBLEMS, Problems
from tests.unit.workflows.conftest import World
from tests.unit.workflows.definitions import VALID, WRONG_FORM, WRONG_SENSE, step, workflow

Told = list[tuple[str, str]]


def _problems(raw: Any, form: Form | None = None) -> Told:
    try:
        parse_definition(raw, form=form)
    except InvalidDefinition as refused:
        return list(refused.problems)
    return []


def _told(schema: dict[str, Any], raw: Any, noted: Told | None = None) -> Told:
    """What a schema adds to what was noted before."""
    problems = Problems()
    for pointer, words in noted or ():
        problems.add(pointer, words)
    Form(schema).add_problems(raw, problems)
    return [(problem.pointer, problem.problem) for problem in problems][len(noted or ()) :]


@pytest.mark.parametrize("raw", VALID, ids=range(len(VALID)))
def test_right_definitions_fit(raw: dict[str, Any]) -> None:
    """Nothing is added to what is right."""
    assert _problems(raw, definition_form()) == []


@pytest.mark.parametrize(("raw", "pointers"), WRONG_FORM + WRONG_SENSE)
def test_nothing_is_said_twice(raw: Any, pointers: list[str]) -> None:
    """The parser's words come first and stand; what is added is about other places."""
    own = _problems(raw)
    both = _problems(raw, definition_form())
    assert both[: len(own)] == own
    assert {pointer for pointer, _ in both[len(own) :]}.isdisjoint(pointers)
    assert len(set(both)) == len(set(own)) + len(both) - len(own)


def test_what_the_parser_leaves_unsaid_is_added() -> None:
    """Of a step whose type nobody knows, the schema still knows what no step may have."""
    raw = workflow({"name": "a", "type": "cook", "config": "soup", "timeout": "long"})
    assert [pointer for pointer, _ in _problems(raw)] == ["/steps/0/type"]
    assert _problems(raw, definition_form())[1:] == [
        ("/steps/0/config", "has to be an object, not a text"),
        ("/steps/0/timeout", "has to be a number, not a text"),
    ]


def test_what_is_to_be_left_out_is_not_looked_into() -> None:
    """A step of this type has no variables: which of them are wrong helps nobody."""
    raw = workflow({"name": "a", "type": "http", "config": {"url": "http://x"}, "env": {"": [], "SANDGATE_A": {}}})
    own = _problems(raw)
    assert [pointer for pointer, _ in own] == ["/steps/0/env"]
    assert _problems(raw, definition_form()) == own


@pytest.mark.parametrize(
    ("schema", "raw", "pointer", "words"),
    [
        ({"required": ["a~"]}, {}, "", "`a~` is required"),
        ({"properties": {"a": True}, "additionalProperties": False}, {"b/c": 1}, "/b~1c", "There is no key `b/c` here"),
        ({"properties": {"a": False}}, {"a": 1}, "/a", "does not belong here; leave it out"),
        ({"type": ["string", "object"]}, 1, "", "has to be a text or an object, not a number"),
        ({"items": {"enum": ["x", 1]}}, ["y"], "/0", "has to be one of `x`, `1`"),
        ({"minimum": 1000}, 1, "", "has to be at least 1,000"),
        ({"maximum": 0.5}, 1, "", "has to be at most 0.5"),
        ({"minLength": 2}, "a", "", "has to have at least 2 characters"),
        ({"maxLength": 2}, "abc", "", "has to have at most 2 characters"),
        ({"minItems": 1}, [], "", "has to have at least 1 elements"),
        ({"maxItems": 1}, [1, 2], "", "has to have at most 1 elements"),
        ({"maxProperties": 1}, {"a": 1, "b": 2}, "", "has to have at most 1 members"),
        ({"uniqueItems": True}, [1, 1], "", "has something in it twice"),
        ({"pattern": "^a$", "description": "an a"}, "b", "", "has to be an a"),
        ({"propertyNames": {"pattern": "^a$", "description": "an a"}}, {"b": 1}, "/b", "The name has to be an a"),
        ({"not": {"type": "null", "description": "nothing"}}, None, "", "may not be nothing"),
        ({"not": {}}, None, "", "may not be like this"),
        ({"anyOf": [False], "description": "it"}, 1, "", "has to be it"),
        ({"oneOf": [True, True], "description": "it"}, 1, "", "has to be it"),
        ({"oneOf": [False], "description": "it"}, 1, "", "has to be it"),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, "", "`b` is required"),
        ({"const": 1}, 2, "", "has to be as #/const of GET /api/v1/orchestrator/schema wants it"),
        (
            {"$defs": {"x": {"pattern": "^a$", "description": "an a"}}, "items": {"$ref": "#/$defs/x"}},
            ["b"],
            "/0",
            "has to be an a",
        ),
    ],
)
def test_each_refusal_has_words(schema: dict[str, Any], raw: Any, pointer: str, words: str) -> None:
    """Where it is, and what would be right."""
    assert _told(schema, raw) == [(pointer, words)]
    # Said already, whatever the words.
    assert _told(schema, raw, [(pointer, "no")]) == []


def test_a_part_that_was_named_stands_for_the_whole() -> None:
    """The parser points at the element, or at the member, that the schema only knows to be somewhere in there."""
    spread: list[dict[str, Any]] = [{"uniqueItems": True}, {"not": {}}, {"anyOf": [False]}, {"oneOf": [False]}]
    for schema in spread:
        assert _told(schema, [[1], [1]], [("/1/0", "is named twice")]) == []
    assert _told({"dependentRequired": {"a": ["b"]}}, {"a": 1}, [("/a", "has a meaning only beside b")]) == []
    # But not for what is absent, or of a wrong type.
    assert _told({"required": ["b"]}, {"a": 1}, [("/a", "no")]) == [("", "`b` is required")]


def test_every_rule_of_the_schema_has_words() -> None:
    """No answer to a wrong definition sends anybody to look into the schema."""
    for raw, _pointers in WRONG_FORM:
        problems = Problems()
        definition_form().add_problems(raw, problems)
        assert problems, raw
        assert not [problem for problem in problems if "/schema" in problem.problem or "like this" in problem.problem]


@pytest.mark.parametrize(
    "raw",
    [
        workflow(env={f"1{number}": [] for number in range(20_000)}),
        workflow(step("a") | {"needs": [{"a": number} for number in range(50_000)]}),
        workflow() | {"steps": [{}] * 100_000},
        workflow() | {"steps": [step("1", timeout=-1, unknown=[{}] * 100)] * 500},
    ],
    ids=["names", "needs", "steps", "repeated"],
)
def test_large_ones_are_refused_in_time(raw: Any) -> None:
    """Words of the library about all that is wrong here would take minutes, and gigabytes."""
    began = time.process_time()
    problems = Problems()
    definition_form().add_problems(raw, problems)
    told = list(problems)
    problems.add("/steps", "is refused")
    definition_form().add_problems(raw, problems)
    # Some hundredths of a second.
    assert time.process_time() - began < 10
    assert len(told) == 1
    assert len(list(problems)) == 2


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(_JSON)
def test_whatever_comes_is_taken(raw: Any) -> None:
    """Any JSON is answered with problems, and with no more than there may be."""
    assert 0 < len(_problems(raw, definition_form())) <= MAX_PROBLEMS


@pytest.fixture
def stricter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema that asks for more than the parser does."""
    form = Form({"properties": {"name": {"pattern": "^good", "description": "a good one"}}})
    monkeypatch.setattr(form_module, "definition_form", lambda: form)


@pytest.mark.usefixtures("stricter")
async def test_validate_create_and_replace_use_the_schema(world: World) -> None:
    """What only the schema refuses is not accepted."""
    good = workflow() | {"name": "good"}
    made = await world.service.create(world.user, good)
    bad = good | {"name": "bad"}
    for refused in (
        world.service.validate(world.user, bad),
        world.service.create(world.user, bad),
        world.service.replace(world.user, made.workflow_id, bad),
    ):
        with pytest.raises(InvalidDefinition) as told:
            await refused
        assert list(told.value.problems) == [("/name", "has to be a good one")]
    assert (await world.service.replace(world.user, made.workflow_id, good)).version == 2


async def test_what_was_accepted_is_run_whatever_the_schema_says_now(
    world: World, request: pytest.FixtureRequest
) -> None:
    """The schema is a gate, and not a reason to stop what has passed it."""
    workflow_id = await world.create(step("a"))
    request.getfixturevalue("stricter")
    assert (await world.begin(workflow_id, wait_s=60)).status is RunStatus.SUCCEEDED
