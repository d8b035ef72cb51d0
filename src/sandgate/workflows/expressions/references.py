"""Which paths an expression looks at, without evaluating it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from sandgate.workflows.expressions.nodes import Expression, Index, Literal, Name, Node, children

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """A path as far as it is written out: of ``steps.a.outputs[index]`` it is ``("steps", "a", "outputs")``."""

    path: Path
    position: int


def references(expression: Expression) -> frozenset[Path]:
    """The paths that the expression looks at."""
    return frozenset(found.path for found in find_references(expression))


def find_references(expression: Expression) -> tuple[Reference, ...]:
    """The paths that the expression looks at and where they stand, in that order."""
    return tuple(sorted(_find(expression.root), key=lambda found: found.position))


def _find(root: Node) -> Iterator[Reference]:
    todo = [root]
    while todo:
        node = todo.pop()
        if isinstance(node, Name | Index):
            start, keys = _unwind(node)
            if isinstance(start, Name):
                yield Reference((start.name, *_written_out(keys)), start.position)
            else:
                todo.append(start)
            todo.extend(key for key in keys if not isinstance(key, Literal))
        else:
            todo.extend(children(node))


def _unwind(node: Node) -> tuple[Node, list[Node]]:
    """What a path starts with, and its keys in order."""
    keys: list[Node] = []
    while isinstance(node, Index):
        keys.append(node.key)
        node = node.base
    return node, keys[::-1]


def _written_out(keys: list[Node]) -> Iterator[str | int]:
    for key in keys:
        if not isinstance(key, Literal) or isinstance(key.value, bool) or not isinstance(key.value, str | int):
            return
        yield key.value
