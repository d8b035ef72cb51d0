"""Gives an expression its value. There are no side effects, and every step of the way is paid for.

A context maps the first words of paths to JSON. For a step with ``foreach`` the context holds its ``outputs`` as the
list of the items' outputs: a name after a list gives the list of that member of each element.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sandgate.core.errors import ExpressionError
from sandgate.core.workflow import Json
from sandgate.workflows.expressions.functions import STATUS_FUNCTIONS, call
from sandgate.workflows.expressions.nodes import (
    Binary,
    Call,
    Expression,
    Index,
    ListOf,
    Literal,
    Name,
    Node,
    ObjectOf,
    Unary,
    walk,
)
from sandgate.workflows.expressions.operators import apply_binary, need_boolean, negate
from sandgate.workflows.expressions.values import MissingSecret, MissingValue, SecretValues, Work, kind
from sandgate.workflows.suggestions import shown, suggest

_NODE_COST = 8
_LOGIC = frozenset({"and", "or"})


@dataclass(frozen=True, slots=True)
class StatusFunctions:
    """What ``success()``, ``failure()`` and ``cancelled()`` answer; ``always()`` is true."""

    success: bool = True
    failure: bool = False
    cancelled: bool = False

    def answer(self, name: str) -> bool:
        """The value of a status function."""
        return {"success": self.success, "failure": self.failure, "cancelled": self.cancelled, "always": True}[name]


def evaluate(
    expression: Expression,
    context: Mapping[str, Json],
    *,
    status: StatusFunctions | None = None,
    work: Work | None = None,
) -> Json:
    """The value of an expression. Raises ``ExpressionError`` with the position in its text.

    Status functions have a value only when ``status`` is given. ``work`` is shared by expressions that are to stay
    within one bound together. The value may share parts with the context: neither may be changed.
    """
    return _Evaluation(context, status, work or Work()).value(expression.root)


def evaluate_condition(
    expression: Expression, context: Mapping[str, Json], status: StatusFunctions, work: Work | None = None
) -> bool:
    """The value of an ``if``; one that asks no status function itself also asks for ``success()``.

    Raises ``ExpressionError``, also when the value is no boolean.
    """
    if not uses_status(expression) and not status.success:
        return False
    value = evaluate(expression, context, status=status, work=work)
    if not isinstance(value, bool):
        raise ExpressionError(f"A condition has to be a boolean, not {kind(value)}; compare it with something", 0)
    return value


def uses_status(expression: Expression) -> bool:
    """Whether a status function is called anywhere in the expression."""
    return find_status_call(expression) is not None


def find_status_call(expression: Expression) -> Call | None:
    """The first status function that the expression calls."""
    calls = (node for node, _ in walk(expression.root) if isinstance(node, Call) and node.function in STATUS_FUNCTIONS)
    return min(calls, key=lambda node: node.position, default=None)


class _Evaluation:
    """One walk over a tree, whose depth the parser bounds."""

    def __init__(self, context: Mapping[str, Json], status: StatusFunctions | None, work: Work) -> None:
        self._context = context
        self._status = status
        self._work = work
        # How many `default(…)` stand around what is looked at: nobody reads then what is missing.
        self._caught = 0

    def value(self, node: Node) -> Json:
        """The value of a node."""
        self._work.spend(_NODE_COST)
        match node:
            case Literal(value=value):
                return value
            case Name():
                return self._named(node)
            case Index():
                return self._index(node)
            case ListOf(items=items):
                return [self.value(item) for item in items]
            case ObjectOf(items=pairs):
                return {key: self.value(item) for key, item in pairs}
            case Unary():
                return self._unary(node)
            case Binary():
                return self._logic(node) if node.operator in _LOGIC else self._binary(node)
            case Call():
                return self._call(node)

    def _named(self, node: Name) -> Json:
        if node.name not in self._context:
            raise MissingValue(f"`{node.name}` has no value here", node.position)
        return self._context[node.name]

    def _index(self, node: Index) -> Json:
        base, key = self.value(node.base), self.value(node.key)
        self._work.position = node.position
        if isinstance(key, str):
            return self._member(base, key)
        if isinstance(key, int) and not isinstance(key, bool) and isinstance(base, list):
            if -len(base) <= key < len(base):
                return base[key]
            raise self._missing(f"There is no element {key} in a list of {len(base)}")
        raise self._work.error(f"{kind(base)} has no element that is named by {kind(key)}".capitalize())

    def _member(self, base: Json, key: str) -> Json:
        if isinstance(base, dict):
            if key in base:
                return base[key]
            if isinstance(base, SecretValues):
                raise MissingSecret(key, self._work.position)
            near = "" if self._caught else suggest(key, base) or "it is empty"
            raise self._missing(f"There is no {shown(key)} in the object; {near}")
        if isinstance(base, list):
            return self._project(base, key)
        if base is None:
            raise self._missing(f"null has no member {shown(key)}")
        raise self._work.error(f"{kind(base)} has no members; {shown(key)} was asked for".capitalize())

    def _project(self, items: list[Json], key: str) -> list[Json]:
        """The member of each element; null where an element lacks it, so that places stay the same."""
        self._work.spend(_NODE_COST * len(items))
        odd = next((item for item in items if item is not None and not isinstance(item, dict)), None)
        if odd is not None:
            raise self._work.error(f"The list holds {kind(odd)}, which has no member {shown(key)}")
        return [None if item is None else item.get(key) for item in items]

    def _missing(self, problem: str) -> MissingValue:
        return MissingValue(problem, self._work.position)

    def _unary(self, node: Unary) -> Json:
        operand = self.value(node.operand)
        self._work.position = node.position
        return not need_boolean(operand, "not", self._work) if node.operator == "not" else negate(operand, self._work)

    def _logic(self, node: Binary) -> bool:
        left = self.value(node.left)
        self._work.position = node.position
        if need_boolean(left, node.operator, self._work) is (node.operator == "or"):
            return node.operator == "or"
        right = self.value(node.right)
        self._work.position = node.position
        return need_boolean(right, node.operator, self._work)

    def _binary(self, node: Binary) -> Json:
        left, right = self.value(node.left), self.value(node.right)
        self._work.position = node.position
        return apply_binary(node.operator, left, right, self._work)

    def _call(self, node: Call) -> Json:
        if node.function in STATUS_FUNCTIONS:
            if self._status is None:
                raise ExpressionError(f"{node.function}() has a value only in `if`", node.position)
            return self._status.answer(node.function)
        if node.function == "default":
            return self._default(node)
        arguments = [self.value(argument) for argument in node.arguments]
        self._work.position = node.position
        return call(node.function, arguments, self._work)

    def _default(self, node: Call) -> Json:
        self._caught += 1
        try:
            value = self.value(node.arguments[0])
        except MissingValue:
            value = None
        finally:
            self._caught -= 1
        return self.value(node.arguments[1]) if value is None else value
