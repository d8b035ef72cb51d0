"""Definitions: right ones are completed, wrong ones answer everything that is wrong, at once and with its place."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sandgate.cli.workflows.yaml_text import parse_yaml
from sandgate.core.errors import InvalidDefinition
from sandgate.workflows.definition import parse_definition
from sandgate.workflows.problems import MAX_PROBLEMS
from sandgate.workflows.schema import definition_schema
from tests.unit.workflows.definitions import VALID, WRONG_FORM, WRONG_SENSE, step, workflow

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if re.fullmatch(r"[a-z-]+\.(json|yaml)", path.name))
SHOWN = [
    block
    for block in re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "workflows.md").read_text("utf-8"), re.DOTALL)
    if '"steps": [' in block and '"name"' in block.partition('"steps": [')[0]
]
SCHEMA = Draft202012Validator(definition_schema())


def problems_of(raw: Any) -> list[tuple[str, str]]:
    """All that is wrong with a definition; nothing when it is right."""
    try:
        parse_definition(raw)
    except InvalidDefinition as error:
        return list(error.problems)
    return []


def resolve(raw: Any, pointer: str) -> Any:
    """What a JSON pointer leads to (Source: RFC 6901). Raises ``LookupError``."""
    value = raw
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def test_the_schema_is_one() -> None:
    """It is valid by the draft that it names."""
    Draft202012Validator.check_schema(definition_schema())


@pytest.mark.parametrize("raw", VALID, ids=range(len(VALID)))
def test_right_definitions_are_read_and_fit_the_schema(raw: dict[str, Any]) -> None:
    """Parser and schema agree on what is right."""
    assert problems_of(raw) == []
    assert [error.message for error in SCHEMA.iter_errors(raw)] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_right(path: Path) -> None:
    """Every example is a definition that can be created as it is."""
    text = path.read_text()
    raw = orjson.loads(text) if path.suffix == ".json" else parse_yaml(text, path.name)[0]
    assert problems_of(raw) == []
    assert list(SCHEMA.iter_errors(raw)) == []


@pytest.mark.parametrize("text", SHOWN, ids=range(len(SHOWN)))
def test_what_the_guide_shows_is_right(text: str) -> None:
    """Every definition in the guide can be created as it is."""
    assert problems_of(orjson.loads(text)) == []


def test_a_misspelt_type_hides_no_other_problem() -> None:
    """The step is read as what was probably meant."""
    step = {"name": "a", "type": "code_executon", "config": {"cod": "pass"}, "timeout": -1, "retry": {"on": ["lsot"]}}
    found = {pointer for pointer, _ in problems_of({"name": "w", "steps": [step]})}
    assert found == {f"/steps/0/{part}" for part in ("type", "config/cod", "config", "timeout", "retry/on/0")}


def test_an_unknown_type_hides_no_other_problem() -> None:
    """The step is read as what its `config` looks like, and where that says nothing, as far as all types agree."""
    told = {"name": "a", "type": "bash", "config": {"code": 3, "inpts": {}}, "timeout": -1, "nedes": []}
    dumb = {"name": "b", "type": "bash", "config": {"script": 3}, "retry": {"on": ["lsot"]}, "strategy": {}}
    found = {pointer for pointer, _ in problems_of({"name": "w", "steps": [told, dumb, {"config": {"url": 3}}]})}
    first = {f"/steps/0/{part}" for part in ("type", "config/inpts", "config/code", "timeout", "nedes")}
    second = {f"/steps/1/{part}" for part in ("type", "retry/on/0", "strategy")}
    assert found == first | second | {"/steps/2", "/steps/2/config/url"}


def test_the_pointer_of_the_whole_is_empty() -> None:
    """`/` is the member whose name is empty, in each form in which problems are told."""
    with pytest.raises(InvalidDefinition) as refused:
        parse_definition({"steps": [step("a")], "": 1})
    assert [each["pointer"] for each in refused.value.details["problems"]] == ["/", ""]
    assert [each["field"] for each in refused.value.details["fields"]] == ["/", ""]
    assert "the document: `name` is required" in refused.value.message


def test_there_are_examples() -> None:
    """The examples and the definitions of the guide are found."""
    assert len(SHOWN) >= 2
    assert {path.stem for path in EXAMPLES} >= {"hello", "fan-out", "retry"}


@pytest.mark.parametrize(("raw", "pointers"), WRONG_FORM + WRONG_SENSE)
def test_wrong_definitions_name_each_problem_and_its_place(raw: Any, pointers: list[str]) -> None:
    """Each problem stands at the pointer of what is wrong."""
    assert sorted(pointer for pointer, _ in problems_of(raw)) == sorted(pointers)


@pytest.mark.parametrize(("raw", "pointers"), WRONG_FORM)
def test_the_schema_refuses_what_is_wrong_in_form(raw: Any, pointers: list[str]) -> None:
    """Parser and schema agree on what is wrong."""
    assert not SCHEMA.is_valid(raw)


def test_messages_say_what_would_be_right() -> None:
    """A misspelt word is answered with the one that was meant."""
    raw = workflow(step("fetch"), step("use", nedes=[], **{"if": "steps.fetsh.status == inputs.x"}))
    told = dict(problems_of(raw))
    assert "did you mean `needs`?" in told["/steps/1/nedes"]
    assert problems_of(raw)[1][1] == "There is no step `fetsh`; did you mean `fetch`? (at character 1)"
    assert "/steps/1/if" in told


def test_a_cycle_is_told_step_by_step() -> None:
    """Each step of the circle is followed by one that it waits for."""
    raw = workflow(step("a", needs=["c"]), step("b", needs=["a"]), step("c", needs=["b"]))
    (problem,) = problems_of(raw)
    circle = problem[1].split(": ")[1].split(" → ")
    waits = {"a": "c", "b": "a", "c": "b"}
    assert [waits[name] for name in circle[:-1]] == circle[1:]
    assert circle[0] == circle[-1]


def test_unknown_templates_are_refused_when_they_are_known() -> None:
    """The names of templates are checked only where somebody knows them."""
    raw = workflow(step("a", config={"code": "", "template": "pyhton-3.11"}))
    parse_definition(raw)
    with pytest.raises(InvalidDefinition, match=r"did you mean `python-3\.11`"):
        parse_definition(raw, templates=lambda name: f"There is no template `{name}`; did you mean `python-3.11`?")


def test_the_minimal_form_is_complete() -> None:
    """The definition of the API reference needs nothing more."""
    code = {"code": "print('Step 1')"}
    raw = {"name": "test-workflow", "steps": [{"name": "step1", "type": "code_execution", "config": code}]}
    (only,) = parse_definition(raw).steps
    assert (only.name, only.needs, only.config, only.retry.max_attempts) == ("step1", (), code, 1)


def test_steps_wait_for_the_one_before_unless_they_say() -> None:
    """No ``needs`` means after the step before, an empty one at once; each list counts for itself."""
    raw = workflow(step("a"), step("b"), step("c", needs=[]), step("d"), **{"finally": [step("e"), step("f")]})
    definition = parse_definition(raw)
    needs = {one.name: one.needs for one in (*definition.steps, *definition.final)}
    assert needs == {"a": (), "b": ("a",), "c": (), "d": ("c",), "e": (), "f": ("e",)}


def test_defaults_hold_for_steps_that_do_work() -> None:
    """A step's own words win; approvals and timers take nothing from the defaults."""
    defaults = {"template": "python-3.11", "timeout": 60, "retry": {"delay": 2}, "env": {"A": "2", "B": 3}}
    own = step(
        "own", timeout=5, retry={"max_attempts": 2}, env={"B": "own"}, config={"code": "", "template": "node-22"}
    )
    wait = {"name": "wait", "type": "approval"}
    definition = parse_definition(workflow(step("a"), own, wait, defaults=defaults, env={"A": "1", "C": True}))
    first, second, third = definition.steps
    assert (first.config["template"], first.timeout_s, first.retry.max_attempts) == ("python-3.11", 60, 3)
    assert first.env == {"A": "2", "B": 3, "C": True}
    assert (second.config["template"], second.timeout_s) == ("node-22", 5)
    assert (second.retry.max_attempts, second.retry.delay_s) == (2, 2)
    assert second.env == {"A": "2", "B": "own", "C": True}
    assert (third.timeout_s, third.retry.max_attempts, third.env, third.config) == (None, 1, {}, {})


@pytest.mark.parametrize(
    ("text", "problem"),
    [("${{ env }}", "as in env.NAME"), ("${{ run }}", "as in run.id"), ("${{ steps }}", "steps.NAME")],
)
def test_who_names_the_whole_is_told_how_to_name_a_part(text: str, problem: str) -> None:
    """And not that something without a name is not there."""
    ((_, found),) = problems_of(workflow(step("a", config={"code": "", "inputs": {"x": text}}), env={"A": "b"}))
    assert problem in found
    assert "``" not in found


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (workflow(step("a", config={"code": "x" * 1024 * 1024})), "longer than 1,048,576 bytes"),
        (workflow(description=[[]] * 1 + [10**30]), "64 bits"),
        (workflow(timeout=float("inf")), "finite"),
        (workflow(*[step(f"s{n}") for n in range(501)]), "at most 500 elements"),
        (workflow(*[step(f"s{n}") for n in range(300)], on_error=[step(f"e{n}") for n in range(201)]), "at most 500"),
        (workflow(step("a", config={"code": "", "inputs": {"x": ["${{1}}"] * 5001}})), "more than 5000 expressions"),
        (
            workflow(*(step(f"s{n}", needs=[f"s{k}" for k in range(n)]) for n in range(143))),
            "need at most 10,000 others",
        ),
        (workflow(step("a", foreach=[1] * 1001)), "at most 1000 elements"),
    ],
)
def test_what_is_too_much_is_refused(raw: Any, problem: str) -> None:
    """Sizes and counts are bounded before anything is made of them."""
    assert any(problem in text for _, text in problems_of(raw))


def test_deep_definitions_are_refused_without_recursion() -> None:
    """Nesting far beyond the stack is one problem."""
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    ((pointer, problem),) = problems_of(workflow(step("a", foreach=deep)))
    assert "nested deeper" in problem
    assert pointer.startswith("/steps/0/foreach/0/0")
    while deep:
        deep = deep[0]


def test_the_number_of_problems_is_bounded() -> None:
    """A definition that is wrong everywhere is answered with the first problems."""
    assert len(problems_of(workflow(*[step("1") for _ in range(400)]))) == MAX_PROBLEMS


def test_the_error_has_both_forms() -> None:
    """Clients find pointers, and the fields that other refusals have."""
    with pytest.raises(InvalidDefinition) as caught:
        parse_definition(workflow() | {"steps": []})
    (problem,) = caught.value.details["problems"]
    (field,) = caught.value.details["fields"]
    assert (problem["pointer"], field["field"], caught.value.code) == ("/steps", "/steps", "WORKFLOW_INVALID")


# What keeps nesting, names and values near to what a definition may be, so that most of it is looked at.
KEYS = st.sampled_from(
    ["name", "steps", "config", "code", "needs", "if", "foreach", "retry", "env", "a/b~", "type", "on"]
)
BROKEN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["a", "${{ 1 +", "${{ item }}", "sleep", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A right definition in which one value is replaced by another one."""
    raw = orjson.loads(orjson.dumps(draw(st.sampled_from(VALID))))
    place: Any = raw
    while True:
        keys = list(range(len(place))) if isinstance(place, list) else list(place)
        key = draw(st.sampled_from(keys))
        if not isinstance(place[key], list | dict) or not place[key] or draw(st.booleans()):
            place[key] = draw(BROKEN)
            return raw
        place = place[key]


@given(BROKEN | mutated())
def test_every_problem_points_into_the_definition(raw: Any) -> None:
    """Whatever is sent, it is read or refused, and each pointer leads to something that was sent."""
    for pointer, problem in problems_of(raw):
        resolve(raw, pointer)
        assert problem
