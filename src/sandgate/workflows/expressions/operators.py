"""Operators on two values, each on the types that it is for: nothing is converted silently."""

import operator
from collections.abc import Callable, Mapping

from sandgate.core.workflow import Json
from sandgate.workflows.expressions.functions import contains
from sandgate.workflows.expressions.values import Work, check_number, equal, is_number, kind

_ORDER: Mapping[str, Callable[[Json, Json], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARITHMETIC: Mapping[str, Callable[[Json, Json], int | float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
}


def apply_binary(symbol: str, left: Json, right: Json, work: Work) -> Json:
    """The value of an operator that evaluates both sides. Raises ``ExpressionError`` for wrong types."""
    match symbol:
        case "==":
            return equal(left, right, work)
        case "!=":
            return not equal(left, right, work)
        case "in":
            return contains(right, left, work)
        case "not in":
            return not contains(right, left, work)
    if symbol in _ORDER:
        return _compare(symbol, left, right, work)
    return _calculate(symbol, left, right, work)


def negate(value: Json, work: Work) -> int | float:
    """``-value``."""
    if not is_number(value):
        raise work.error(f"`-` takes a number, not {kind(value)}")
    return check_number(-value, work)


def need_boolean(value: Json, symbol: str, work: Work) -> bool:
    """The boolean. Raises ``ExpressionError`` for all else."""
    if not isinstance(value, bool):
        raise work.error(f"`{symbol}` takes booleans, not {kind(value)}; compare it with something")
    return value


def _compare(symbol: str, left: Json, right: Json, work: Work) -> bool:
    if is_number(left) and is_number(right):
        return _ORDER[symbol](left, right)
    if isinstance(left, str) and isinstance(right, str):
        work.spend(min(len(left), len(right)))
        return _ORDER[symbol](left, right)
    raise work.error(f"`{symbol}` compares two numbers or two texts, not {kind(left)} and {kind(right)}")


def _calculate(symbol: str, left: Json, right: Json, work: Work) -> int | float:
    if not (is_number(left) and is_number(right)):
        hint = "; texts are joined by writing two expressions one after the other" if isinstance(left, str) else ""
        raise work.error(f"`{symbol}` takes two numbers, not {kind(left)} and {kind(right)}{hint}")
    check_number(left, work)
    check_number(right, work)
    if symbol in "/%" and right == 0:
        raise work.error("Division by zero")
    if symbol == "/" and isinstance(left, int) and isinstance(right, int) and left % right == 0:
        return check_number(left // right, work)
    try:
        return check_number(_ARITHMETIC[symbol](left, right), work)
    except OverflowError:
        raise work.error("The number is too large") from None
