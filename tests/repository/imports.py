"""Which modules of the product import which, lazy imports included."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from tests.repository.tree import FunctionNode, Source

Graph = Mapping[str, frozenset[str]]


def imports(source: Source, *, lazy: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements of a file; those inside functions only when ``lazy``; none under TYPE_CHECKING."""
    todo: list[ast.AST] = [source.tree]
    while todo:
        for node in ast.iter_child_nodes(todo.pop()):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield node
            elif not _is_skipped(node, lazy=lazy):
                todo.append(node)


def _is_skipped(node: ast.AST, *, lazy: bool) -> bool:
    if isinstance(node, FunctionNode):
        return not lazy
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imported_names(source: Source, statement: ast.Import | ast.ImportFrom) -> list[str]:
    """The dotted names that a statement asks for: of ``from a import b`` both ``a`` and ``a.b`` are candidates."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    base = _base(source, statement)
    return [base, *(f"{base}.{alias.name}" for alias in statement.names)]


def _base(source: Source, statement: ast.ImportFrom) -> str:
    if not statement.level:
        return statement.module or ""
    here = source.module.split(".")
    here = here[: len(here) - statement.level + source.is_package]
    return ".".join([*here, *([statement.module] if statement.module else [])])


def import_graph(files: tuple[Source, ...]) -> Graph:
    """Each module and the modules among ``files`` that it imports.

    Lazy imports count, but not in the command line, where they only spare the start-up time of a subcommand.
    """
    known = {file.module for file in files}
    return {file.module: frozenset(_targets(file, known)) for file in files}


def _targets(file: Source, known: set[str]) -> set[str]:
    targets: set[str] = set()
    for statement in imports(file, lazy=not file.module.startswith("sandgate.cli")):
        names = [name for name in imported_names(file, statement) if name in known]
        # ``from package import module`` depends on the module, not on what else the package holds.
        targets.update([name for name in names if name != names[0]] or names[:1])
    return targets - {file.module}


def find_circle(graph: Graph) -> list[str]:
    """Modules that import each other in a loop, the first one repeated at the end; empty when there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
