"""The syntax tree of an expression. Every node knows where in the text it stands."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that is written out: a text, a number, true, false or null."""

    position: int
    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Name:
    """The first word of a path: ``inputs``, ``steps``, ``item``, …"""

    position: int
    name: str


@dataclass(frozen=True, slots=True)
class Index:
    """A member of an object or an element of a list; ``a.b`` is ``a['b']``."""

    position: int
    base: "Node"
    key: "Node"


@dataclass(frozen=True, slots=True)
class ListOf:
    """``[a, b]``."""

    position: int
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class ObjectOf:
    """``{'a': b}``; the keys are texts that are written out."""

    position: int
    items: tuple[tuple[str, "Node"], ...]


@dataclass(frozen=True, slots=True)
class Unary:
    """``not a`` or ``-a``."""

    position: int
    operator: str
    operand: "Node"


@dataclass(frozen=True, slots=True)
class Binary:
    """``a + b`` and all else with two sides; ``operator`` is the one spelling of those that have two."""

    position: int
    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Call:
    """``length(a)``; the function is known and has the right number of arguments."""

    position: int
    function: str
    arguments: tuple["Node", ...]


Node: TypeAlias = Literal | Name | Index | ListOf | ObjectOf | Unary | Binary | Call


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: its text without braces, and its tree."""

    text: str
    root: Node


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right below a node."""
    match node:
        case Literal() | Name():
            return ()
        case Index(base=base, key=key):
            return (base, key)
        case ListOf(items=items):
            return items
        case ObjectOf(items=pairs):
            return tuple(value for _, value in pairs)
        case Unary(operand=operand):
            return (operand,)
        case Binary(left=left, right=right):
            return (left, right)
        case Call(arguments=arguments):
            return arguments


def walk(root: Node) -> Iterator[tuple[Node, int]]:
    """Every node with its depth, the root at 1; without recursion, so that it may be used on trees of any depth."""
    todo = [(root, 1)]
    while todo:
        node, depth = todo.pop()
        yield node, depth
        todo.extend((child, depth + 1) for child in children(node))
