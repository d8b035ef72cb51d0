"""Where a definition uses expressions, and what each may look at there."""

from collections.abc import Iterator
from dataclasses import dataclass

from sandgate.core.errors import ExpressionError
from sandgate.core.workflow import Json
from sandgate.workflows.expressions import OPENING, Expression, Template, find_status_call, parse, strip_braces
from sandgate.workflows.names import MAX_EXPRESSIONS
from sandgate.workflows.problems import Problems, below


@dataclass(frozen=True, slots=True)
class Scope:
    """Which first words of paths have a value. ``step`` is the step that the expression belongs to."""

    roots: frozenset[str]
    step: str | None = None
    status: bool = False


@dataclass(frozen=True, slots=True)
class Use:
    """An expression, where it stands, and what it may look at."""

    pointer: str
    expression: Expression
    scope: Scope


class Uses:
    """All expressions of a definition. What cannot be read is a problem at once."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._found: list[Use] = []

    def __iter__(self) -> Iterator[Use]:
        return iter(self._found)

    def add_value(self, pointer: str, value: Json, scope: Scope) -> None:
        """Every text in a value of any depth that the caller has bounded."""
        if isinstance(value, str):
            self.add_text(pointer, value, scope)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self.add_value(below(pointer, index), item, scope)
        elif isinstance(value, dict):
            for key, item in value.items():
                self.add_value(below(pointer, key), item, scope)

    def add_text(self, pointer: str, text: str, scope: Scope) -> Template | None:
        """A text that may hold expressions; None when it holds one that cannot be read."""
        if OPENING not in text:
            return Template((text,))
        try:
            template = Template.parse(text)
        except ExpressionError as error:
            self._problems.add(pointer, error.message)
            return None
        for embedded in template.expressions:
            self._add(pointer, embedded.expression, scope)
        return template

    def add_expression(self, pointer: str, text: str, scope: Scope) -> str | None:
        """A text that is one whole expression, with or without braces. Answers its text without them."""
        try:
            bare = strip_braces(text)
            expression = parse(bare)
        except ExpressionError as error:
            self._problems.add(pointer, error.message)
            return None
        self._add(pointer, expression, scope)
        return bare.strip()

    def _add(self, pointer: str, expression: Expression, scope: Scope) -> None:
        if len(self._found) == MAX_EXPRESSIONS:
            self._problems.add(pointer, f"The definition holds more than {MAX_EXPRESSIONS} expressions")
        if len(self._found) < MAX_EXPRESSIONS:
            self._found.append(Use(pointer, expression, scope))
        call = find_status_call(expression)
        if call is not None and not scope.status:
            where = f"(at character {call.position + 1})"
            self._problems.add(pointer, f"{call.function}() has a value only in `if` {where}")
