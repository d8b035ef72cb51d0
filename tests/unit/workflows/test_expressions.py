"""Expressions: what they mean, what they refuse and where, and that nothing makes them run away."""

import time
from typing import Any

import pytest

from sandgate.core.errors import ExpressionError
from sandgate.workflows.expressions import (
    StatusFunctions,
    Template,
    evaluate,
    evaluate_condition,
    parse,
    references,
    render,
    render_text,
    strip_braces,
    uses_status,
)

CONTEXT: dict[str, Any] = {
    "inputs": {"n": 3, "text": "a,b", "none": None, "flag": True},
    "steps": {
        "square": {"status": "succeeded", "outputs": [{"y": 1}, {"y": 4}, None, {}]},
        "a-b": {"status": "failed", "outputs": {}},
    },
    "item": {"deep": [[1, 2], [3]]},
    "run": {"id": "run-1"},
}

VALUES = [
    ("1 + 2 * 3", 7),
    ("(1 + 2) * 3", 9),
    ("7 - 2 - 1", 4),
    ("6 / 2", 3),
    ("7 / 2", 3.5),
    ("-7 % 3", 2),
    ("--2", 2),
    ("1e3", 1000.0),
    ("'it''s' == \"it's\"", True),
    ("'\\n' == 'n'", False),
    ("1 == 1.0", True),
    ("true == 1", False),
    ("[1, [true]] == [1.0, [1]]", False),
    ("{'a': {'b': 1}} == {\"a\": {'b': 1}}", True),
    ("'1' != 1", True),
    ("inputs.n > 2 and not false", True),
    ("!false && false || true", True),
    ("not 1 == 2", True),
    ("false and 1 / 0 == 1", False),
    ("true or inputs.missing", True),
    ("'a' < 'b'", True),
    ("2 in [1, 2]", True),
    ("2 not in [1, 2]", False),
    ("'bc' in 'abcd'", True),
    ("'n' in inputs", True),
    ("steps.square.outputs.y", [1, 4, None, None]),
    ("steps.square.outputs[1].y", 4),
    ("steps.square.outputs[-3]['y']", 4),
    ("steps['a-b'].status", "failed"),
    ("item.deep[1][0]", 3),
    ("[1, 2,][1]", 2),
    ("length('äö') + length([1]) + length({})", 3),
    ("keys({'b': 1, 'a': 2})", ["a", "b"]),
    ("join([1, 'x', true], '-')", "1-x-true"),
    ("join(split(inputs.text, ','))", "a,b"),
    ("contains([1, 2], 2)", True),
    ("starts_with('abc', 'ab') and ends_with('abc', 'bc')", True),
    ("to_json({'a': [1, null, 'ä']})", '{"a":[1,null,"ä"]}'),
    ("from_json('{\"a\": [1.5]}').a[0]", 1.5),
    ("default(steps['a-b'].outputs.x, 5)", 5),
    ("default(inputs.none.x.y, 'z')", "z"),
    ("default(inputs.flag, false)", True),
]

REFUSED = [
    ("", 0, "Expected a value, found the end"),
    ("1 +", 3, "Expected a value"),
    ("1 2", 2, "the end of the expression"),
    ("(1", 2, "`)`"),
    ("'abc", 0, "no closing"),
    ("1 < 2 < 3", 6, "only one comparison"),
    ("1 + not true", 4, "brackets around"),
    ("nothing.x", 0, "not known"),
    ("steps.a-b.status", 8, "steps['a-b']"),
    ("lenght('a')", 0, "did you mean `length`?"),
    ("length()", 0, "takes 1 argument, not 0"),
    ("default(1)", 0, "takes 2 arguments, not 1"),
    ("success", 0, "success()"),
    ("a.b = 1", 0, "not known"),
    ("inputs. ", 8, "a name after the dot"),
    ("{a: 1}", 1, "a key in quotes"),
    ("{'a': 1, 'a': 2}", 9, "each once"),
    ("#", 0, "no meaning"),
    ("99999999999999999999", 0, "too large"),
    ("1e999", 0, "too large"),
    ("[" * 33 + "]" * 33, 32, "Brackets are nested"),
    ("+".join(["1"] * 102), 4, "in a row"),
    ("[" + "1," * 1000 + "]", 0, "more than 1000 parts"),
    ("'" + "a" * 9000 + "'", 0, "no closing"),
    ("1" + " " * 9000 + "+ 1", 9001, "longer than 8192"),
]

FAILING = [
    ("inputs.n + 'a'", 9, "takes two numbers"),
    ("'a' + 'b'", 4, "joined by"),
    ("true + 1", 5, "two numbers"),
    ("1 < 'a'", 2, "two numbers or two texts"),
    ("not 1", 0, "takes booleans"),
    ("true and 'x'", 5, "takes booleans"),
    ("-'x'", 0, "takes a number"),
    ("1 / 0", 2, "Division by zero"),
    ("9223372036854775807 + 1", 20, "too large"),
    ("1e308 * 10", 6, "too large"),
    ("inputs.m", 6, "There is no `m`"),
    ("inputs.n.x", 8, "has no members"),
    ("item.deep[5]", 9, "no element 5"),
    ("item.deep[true]", 9, "named by a boolean"),
    ("inputs.none.x", 11, "null has no member"),
    ("item.deep.x", 9, "holds a list"),
    ("env.x", 0, "has no value here"),
    ("1 in 2", 2, "cannot"),
    ("1 in 'a'", 2, "has to be a text"),
    ("length(1)", 0, "takes a text"),
    ("keys([])", 0, "takes an object"),
    ("join([null])", 0, "holds null"),
    ("split('a', '')", 0, "is empty"),
    ("from_json('NaN')", 0, "no JSON"),
    ("from_json('[1e999]')", 0, "no JSON"),
    ("from_json('\"\\ud800\"')", 0, "surrogate"),
    ("from_json('" + "[" * 2000 + "')", 0, "nested too deeply"),
    ("from_json('" + "[" * 80 + "]" * 80 + "')", 0, "nested deeper"),
    ("success()", 0, "only in `if`"),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_an_expression_has_the_value_that_the_guide_says(text: str, value: object) -> None:
    """Operators, paths and functions mean what is written, with types kept."""
    found = evaluate(parse(text), CONTEXT)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("text", "position", "problem"), REFUSED)
def test_what_cannot_be_read_is_refused_with_its_position(text: str, position: int, problem: str) -> None:
    """The error says where it is and what would be right."""
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert (caught.value.position, problem in caught.value.problem) == (position, True), caught.value.message


@pytest.mark.parametrize(("text", "position", "problem"), FAILING)
def test_what_has_no_value_fails_with_its_position(text: str, position: int, problem: str) -> None:
    """Wrong types are errors at the operator or function that met them, never conversions."""
    expression = parse(text)
    with pytest.raises(ExpressionError) as caught:
        evaluate(expression, CONTEXT)
    assert (caught.value.position, problem in caught.value.problem) == (position, True), caught.value.message


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("steps.a.outputs.y[0] + inputs.x", {("steps", "a", "outputs", "y", 0), ("inputs", "x")}),
        ("steps['a-b'].outputs[index].z", {("steps", "a-b", "outputs"), ("index",)}),
        ("steps[inputs.name]", {("steps",), ("inputs", "name")}),
        ("join([item.a], env.SEP)", {("item", "a"), ("env", "SEP")}),
        ("from_json(secrets.S)['x'].y", {("secrets", "S")}),
        ("{'a': run.id}.a == 'inputs.x'", {("run", "id")}),
    ],
)
def test_references_are_found_without_evaluating(text: str, paths: set[tuple[str | int, ...]]) -> None:
    """Every path is named as far as it is written out."""
    assert references(parse(text)) == paths


@pytest.mark.parametrize(
    ("text", "status", "answer"),
    [
        ("inputs.n == 3", StatusFunctions(), True),
        ("inputs.n == 3", StatusFunctions(success=False, failure=True), False),
        ("1 / 0", StatusFunctions(success=False), False),
        ("failure()", StatusFunctions(success=False, failure=True), True),
        ("always() and inputs.n == 3", StatusFunctions(success=False, cancelled=True), True),
        ("cancelled() || success()", StatusFunctions(success=False, failure=True), False),
    ],
)
def test_a_condition_asks_for_success_unless_it_asks_itself(text: str, status: StatusFunctions, answer: bool) -> None:
    """As on GitHub Actions: without a status function, `success()` is meant too."""
    assert evaluate_condition(parse(text), CONTEXT, status) is answer


def test_a_condition_is_a_boolean() -> None:
    """A number or a text is no condition."""
    with pytest.raises(ExpressionError, match="has to be a boolean, not a number"):
        evaluate_condition(parse("inputs.n"), CONTEXT, StatusFunctions())
    assert not uses_status(parse("'failure()'"))


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        ("${{ inputs.n }}", 3),
        ("  ${{ inputs.none }} ", None),
        ("n is ${{ inputs.n }}, flag ${{inputs.flag}}", "n is 3, flag true"),
        ("${{ inputs.n }}${{ inputs.n }}", "33"),
        ("${{ {'a': {'b': '}}'}} }}", {"a": {"b": "}}"}}),
        ("${{ '${{' }}", "${{"),
        ("no $ {{ expression }}", "no $ {{ expression }}"),
        ({"${{ k }}": ["${{ item.deep }}", 1, None]}, {"${{ k }}": [[[1, 2], [3]], 1, None]}),
    ],
)
def test_a_whole_expression_keeps_its_type_and_others_are_joined(value: object, rendered: object) -> None:
    """Values are rendered at any depth; keys are left alone."""
    assert render(value, CONTEXT) == rendered


def test_null_is_no_text() -> None:
    """A null inside a text is an error that says what to write; lists become JSON."""
    with pytest.raises(ExpressionError, match="default"):
        render("x${{ inputs.none }}", CONTEXT)
    assert render_text("${{ item.deep }}", CONTEXT) == "[[1,2],[3]]"


@pytest.mark.parametrize("text", ["${{ 1", "${{ 1 }", "${{ }}", "x ${{ 1 2 }}"])
def test_a_broken_template_is_refused(text: str) -> None:
    """Braces that do not close, and what is no expression between them."""
    with pytest.raises(ExpressionError):
        Template.parse(text)


def test_braces_around_a_condition_are_optional() -> None:
    """With or without, but around all of it."""
    assert strip_braces("inputs.n == 3") == "inputs.n == 3"
    assert strip_braces("${{ inputs.n == 3 }}").strip() == "inputs.n == 3"
    with pytest.raises(ExpressionError, match="around all of it"):
        strip_braces("${{ inputs.n }} == 3")


@pytest.mark.parametrize(
    "text",
    [
        "[" + ",".join(["to_json(inputs.big)"] * 200) + "]",
        "[" + ",".join(["inputs.big == inputs.same"] * 100) + "]",
        "[" + ",".join(["inputs.long in inputs.longer"] * 100) + "]",
        "[" + ",".join(["split(inputs.longer, 'a')"] * 100) + "]",
        "join(split(inputs.longer, 'a'), inputs.long)",
        "[" + ",".join(["join(inputs.flags)"] * 100) + "]",
        "[" + ",".join(["0 in inputs.texts"] * 100) + "]",
    ],
)
def test_much_work_is_refused_soon(text: str) -> None:
    """Values that are used again and again multiply neither time nor memory."""
    context = {"inputs": {"big": list(range(60_000)), "same": list(range(60_000)), "long": "a" * 300_000}}
    context["inputs"] |= {"flags": [True] * 30_000, "texts": ["a"] * 30_000}
    context["inputs"]["longer"] = "a" * 600_000
    started = time.process_time()
    with pytest.raises(ExpressionError, match=r"too much work|longer than"):
        evaluate(parse(text), context)
    assert time.process_time() - started < 2


def test_what_default_catches_costs_no_search_for_what_was_meant() -> None:
    """Names that are like many others take long to compare; nobody reads the result."""
    context = {"inputs": {"a" * 36 + f"{number:04d}": 1 for number in range(200)}}
    text = "[" + ",".join([f"default(inputs.{'a' * 40}, 1)"] * 100) + "]"
    started = time.process_time()
    assert evaluate(parse(text), context) == [1] * 100
    assert time.process_time() - started < 0.5
    with pytest.raises(ExpressionError, match="did you mean"):
        evaluate(parse(f"[default(inputs.x, 1), inputs.{'a' * 40}]"), context)


def test_values_that_share_parts_are_measured_before_they_grow() -> None:
    """A small value that stands for an enormous text is refused."""
    value: list[Any] = ["x" * 100]
    for _ in range(40):
        value = [value, value]
    with pytest.raises(ExpressionError, match="too much work"):
        render("${{ item }}", {"item": value})
