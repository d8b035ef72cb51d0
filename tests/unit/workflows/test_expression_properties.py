"""Properties of expressions: over random texts, values and calculations."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.core.errors import ExpressionError
from sandgate.workflows.expressions import evaluate, parse, render

CONTEXT = {"inputs": {"n": 3}}

WORDS = ["inputs", ".", "n", "[", "]", "(", ")", "{", "}", "'", '"', "==", "<", "and", "not", "in", "-", "+", "/", "0"]
SOUP = st.lists(st.sampled_from([*WORDS, ",", ":", "length", "default", "$", "}}", "${{", " ", "1e9", "null"]))


@given(st.one_of(st.text(), SOUP.map("".join), SOUP.map(" ".join)))
def test_no_text_does_anything_but_have_a_value_or_be_refused(text: str) -> None:
    """Whatever is written, only ``ExpressionError`` leaves."""
    for attempt in (lambda: evaluate(parse(text), CONTEXT), lambda: render("${{" + text, CONTEXT)):
        _try(attempt)


def _try(attempt: Callable[[], Any]) -> None:
    position = 0
    try:
        attempt()
    except ExpressionError as error:
        position = error.position
    assert 0 <= position <= 10_000


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_json_goes_out_and_comes_back(value: object) -> None:
    """``from_json(to_json(x))`` is x, and so is x written as a whole expression."""
    stored = "\x00" not in str(value) and "\\x00" not in repr(value) and "\\ud" not in repr(value)
    if stored:
        assert evaluate(parse("from_json(to_json(item)) == item"), {"item": value}) is True
    assert render("${{ item }}", {"item": value}) == value


def _written(value: Any) -> str:
    """A value as a literal of the language."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_written(key)}: {_written(item)}" for key, item in value.items()) + "}"
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else repr(value)
    )


@given(JSON)
def test_literals_mean_what_is_written(value: object) -> None:
    """A value that is written as a literal is read as that value."""
    assert evaluate(parse(_written(value)), {}) == value


NUMBERS = st.integers(-50, 50).map(lambda n: (f"({n})", str(n)))
ARITHMETIC = st.recursive(
    NUMBERS,
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "%"]), inner).map(
        lambda parts: (f"{parts[0][0]} {parts[1]} {parts[2][0]}", f"{parts[0][1]} {parts[1]} {parts[2][1]}")
    ),
    max_leaves=8,
)
COMPARISONS = st.tuples(ARITHMETIC, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), ARITHMETIC).map(
    lambda parts: (f"{parts[0][0]} {parts[1]} {parts[2][0]}", f"{parts[0][1]} {parts[1]} {parts[2][1]}")
)
LOGIC = st.recursive(
    COMPARISONS,
    lambda inner: st.tuples(
        inner, st.sampled_from([("and", "and"), ("or", "or"), ("&&", "and"), ("||", "or")]), inner
    ).map(
        lambda parts: (
            f"{parts[0][0]} {parts[1][0]} not {parts[2][0]}",
            f"{parts[0][1]} {parts[1][1]} not {parts[2][1]}",
        )
    ),
    max_leaves=5,
)


@given(ARITHMETIC | LOGIC)
def test_operators_bind_and_count_as_in_python(pair: tuple[str, str]) -> None:
    """Random expressions without brackets have the value that Python gives the same text."""
    ours, python = pair
    try:
        wanted = eval(python, {"__builtins__": {}})  # a text that this test has made itself
    except ZeroDivisionError:
        with pytest.raises(ExpressionError, match="Division by zero"):
            evaluate(parse(ours), {})
        return
    assert evaluate(parse(ours), {}) == wanted
