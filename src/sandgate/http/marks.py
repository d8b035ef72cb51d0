"""Marks in the annotations of an operation's parameters: where an argument comes from, and what is said of it.

They are of no framework's, so that what serves requests need not import one; see ``sandgate.http.document``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Path:
    """An argument that is a part of the path; the keywords, as ``examples``, are for the document."""

    def __init__(self, **described: Any) -> None:
        self.described = described


class Query:
    """An argument that is the model of the query string."""


@dataclass(frozen=True, slots=True)
class ParsedBy:
    """Put into the annotation of a path parameter: turns its text into a typed value, or raises."""

    parse: Callable[[str], object]
