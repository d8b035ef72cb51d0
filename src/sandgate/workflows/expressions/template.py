"""Texts with expressions in them, and whole JSON values that hold such texts.

A text that is one whole ``${{ … }}`` has the value of the expression, of whatever type; in any other text the values
become part of the text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sandgate.core.errors import ExpressionError
from sandgate.core.workflow import Json
from sandgate.workflows.expressions.evaluator import evaluate
from sandgate.workflows.expressions.nodes import Expression
from sandgate.workflows.expressions.parser import parse_braced
from sandgate.workflows.expressions.values import MAX_VALUE_DEPTH, Work, measure, to_text

OPENING = "${{"
MAX_EXPRESSIONS = 200


@dataclass(frozen=True, slots=True)
class Embedded:
    """An expression and where its text starts in the text around it."""

    position: int
    expression: Expression


TemplatePart: TypeAlias = str | Embedded


@dataclass(frozen=True, slots=True)
class Template:
    """A text, cut into literal parts and expressions."""

    parts: tuple[TemplatePart, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Raises ``ExpressionError`` with the position in ``text``."""
        parts: list[TemplatePart] = []
        end = 0
        while (start := text.find(OPENING, end)) >= 0:
            if len(parts) > 2 * MAX_EXPRESSIONS:
                raise ExpressionError(f"A text holds at most {MAX_EXPRESSIONS} expressions", start)
            if start > end:
                parts.append(text[end:start])
            expression, end = parse_braced(text, start + len(OPENING))
            parts.append(Embedded(start + len(OPENING), expression))
        if end < len(text):
            parts.append(text[end:])
        return cls(tuple(parts))

    @property
    def whole(self) -> Embedded | None:
        """The expression that the whole text is, but for space around it."""
        found = self.expressions
        literal = (part for part in self.parts if isinstance(part, str))
        return found[0] if len(found) == 1 and not any(part.strip() for part in literal) else None

    @property
    def expressions(self) -> tuple[Embedded, ...]:
        """All expressions in order."""
        return tuple(part for part in self.parts if isinstance(part, Embedded))

    def render(self, context: Mapping[str, Json], work: Work | None = None) -> Json:
        """The value. Raises ``ExpressionError`` with the position in the text."""
        work = work or Work()
        if (whole := self.whole) is not None:
            value = _evaluate(whole, context, work)
            measure(value, work)
            return value
        texts = [part if isinstance(part, str) else _text(part, context, work) for part in self.parts]
        work.check_text(sum(map(len, texts)))
        return "".join(texts)


def render(value: Json, context: Mapping[str, Json], work: Work | None = None) -> Json:
    """The value with every text in it rendered, at any depth; keys stay as they are.

    All expressions of the value share one bound of work. Raises ``ExpressionError``; its position is in the text that
    holds the expression.
    """
    return _render(value, context, work or Work(), 0)


def render_text(value: Json, context: Mapping[str, Json], work: Work | None = None) -> str:
    """The value as a text, as it is needed for environment variables, headers and addresses.

    Lists and objects become JSON. Raises ``ExpressionError``, also for null.
    """
    work = work or Work()
    return to_text(_render(value, context, work, 0), work)


def strip_braces(text: str) -> str:
    """The text of an expression that may be given with ``${{ … }}`` around it or without, without it.

    Raises ``ExpressionError`` when it has braces and is not one whole expression.
    """
    if OPENING not in text:
        return text
    whole = Template.parse(text).whole
    if whole is None:
        raise ExpressionError("Expected one whole expression, with ${{ and }} around all of it", text.find(OPENING))
    return whole.expression.text


def _render(value: Json, context: Mapping[str, Json], work: Work, depth: int) -> Json:
    if depth > MAX_VALUE_DEPTH:
        raise work.error(f"The value is nested deeper than {MAX_VALUE_DEPTH} levels")
    work.spend(1)
    if isinstance(value, str):
        return Template.parse(value).render(context, work) if OPENING in value else value
    if isinstance(value, list):
        return [_render(item, context, work, depth + 1) for item in value]
    if isinstance(value, dict):
        return {key: _render(item, context, work, depth + 1) for key, item in value.items()}
    return value


def _evaluate(part: Embedded, context: Mapping[str, Json], work: Work) -> Json:
    # Positions in the tree already count from the start of the text around it.
    return evaluate(part.expression, context, work=work)


def _text(part: Embedded, context: Mapping[str, Json], work: Work) -> str:
    value = _evaluate(part, context, work)
    work.position = part.position
    return to_text(value, work)
