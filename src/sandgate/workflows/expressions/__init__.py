"""Expressions: ``${{ … }}`` in definitions. Typed, without side effects, bounded in time and memory, never ``eval``."""

from sandgate.core.errors import ExpressionError
from sandgate.workflows.expressions.evaluator import (
    StatusFunctions,
    evaluate,
    evaluate_condition,
    find_status_call,
    uses_status,
)
from sandgate.workflows.expressions.nodes import Expression
from sandgate.workflows.expressions.parser import ROOTS, parse
from sandgate.workflows.expressions.references import Path, Reference, find_references, references
from sandgate.workflows.expressions.template import (
    OPENING,
    Embedded,
    Template,
    render,
    render_text,
    strip_braces,
)
from sandgate.workflows.expressions.values import MAX_WORK, MissingSecret, SecretValues, Work, kind

__all__ = [
    "MAX_WORK",
    "OPENING",
    "ROOTS",
    "Embedded",
    "Expression",
    "ExpressionError",
    "MissingSecret",
    "Path",
    "Reference",
    "SecretValues",
    "StatusFunctions",
    "Template",
    "Work",
    "evaluate",
    "evaluate_condition",
    "find_references",
    "find_status_call",
    "kind",
    "parse",
    "references",
    "render",
    "render_text",
    "strip_braces",
    "uses_status",
]
