"""The repository as the rules of this folder see it: files, syntax trees, functions, imports. Read once a session."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
PublicNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Source:
    """One Python file: its path from the root of the repository, its text, its syntax tree and all nodes of that."""

    path: str
    text: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...]

    @property
    def module(self) -> str:
        """The dotted name that it is imported by."""
        parts = Path(self.path).with_suffix("").parts
        parts = parts[1:] if parts[0] == "src" else parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def is_package(self) -> bool:
        """Whether it is an ``__init__.py``."""
        return self.path.endswith("/__init__.py")

    def at(self, node: ast.AST) -> str:
        """Where a node is, as an editor understands it."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


@cache
def tracked_files() -> tuple[str, ...]:
    """Every file that is or could be committed, as paths from the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return tuple(sorted({name for name in listed.split("\0") if name and (ROOT / name).is_file()}))


@cache
def read_text(path: str) -> str:
    """The text of a file; empty for one that is not text."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@cache
def sources(top: str) -> tuple[Source, ...]:
    """The Python files under a folder of the root."""
    paths = [path for path in tracked_files() if path.startswith(f"{top}/") and path.endswith(".py")]
    return tuple(_parse(path) for path in paths)


def _parse(path: str) -> Source:
    text = read_text(path)
    tree = ast.parse(text, path)
    return Source(path, text, tree, tuple(ast.walk(tree)))


def functions(source: Source) -> Iterator[FunctionNode]:
    """Every function and method of a file, nested ones too."""
    return (node for node in source.nodes if isinstance(node, FunctionNode))


def length(node: FunctionNode) -> int:
    """Lines of a function, its signature and docstring counted."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def public_names(source: Source) -> Iterator[tuple[str, PublicNode]]:
    """Classes, functions and methods that others may use, by their dotted name in the file."""
    todo: list[tuple[str, ast.AST]] = [("", source.tree)]
    while todo:
        prefix, parent = todo.pop()
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, PublicNode) and not node.name.startswith("_"):
                yield prefix + node.name, node
                if isinstance(node, ast.ClassDef):
                    todo.append((f"{prefix}{node.name}.", node))


def enclosing_names(source: Source, wanted: ast.AST) -> str:
    """The dotted name of the function or class that holds a node; ``<module>`` at the top level."""
    path: list[str] = []
    parent: ast.AST = source.tree
    while inner := next((n for n in ast.iter_child_nodes(parent) if n is not wanted and _holds(n, wanted)), None):
        if isinstance(inner, PublicNode):
            path.append(inner.name)
        parent = inner
    return ".".join(path) or "<module>"


def _holds(node: ast.AST, wanted: ast.AST) -> bool:
    return any(inner is wanted for inner in ast.walk(node))
