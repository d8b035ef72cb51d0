"""The tree shows the architecture: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.abilities import find_interpreter
from tests.repository.imports import find_circle, import_graph, imported_names, imports
from tests.repository.tree import ROOT, SRC, Source, sources

AGENT_PYTHON = (3, 8)


def _agent_files() -> list[Source]:
    return [source for source in sources("src") if source.module.split(".")[0] == "sandgate_agent"]


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports go one way, lazy ones too."""
    circle = find_circle(import_graph(sources("src")))
    assert not circle, f"Move what these share into a module below them: {' <- '.join(circle)}"


def test_the_layers_hold() -> None:
    """Every contract of import-linter in pyproject.toml is kept. In a process of its own: it sets up logging anew."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"An import breaks a contract of pyproject.toml:\n{done.stdout}{done.stderr}"


def test_the_agent_needs_the_standard_library_only() -> None:
    """What runs inside a sandbox finds all it imports in any Python."""
    strange = [
        f"{source.at(statement)} {name}"
        for source in _agent_files()
        for statement in imports(source, lazy=True)
        for name in imported_names(source, statement)
        if name.split(".")[0] not in sys.stdlib_module_names | {"sandgate_agent"}
    ]
    assert not strange, f"The agent may import only the standard library and itself: {strange}"


def test_the_agent_is_written_in_the_oldest_python_it_serves() -> None:
    """Its syntax is that of Python 3.8."""
    for source in _agent_files():
        ast.parse(source.text, source.path, feature_version=AGENT_PYTHON)


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.13"])
def test_the_agent_imports_in_other_pythons(version: str) -> None:
    """Each module of the agent loads in interpreters older and newer than the server's."""
    interpreter = find_interpreter(version)
    if interpreter is None:
        pytest.skip(f"python {version} is not on this machine")
    modules = ", ".join(source.module for source in _agent_files() if not source.path.endswith("__main__.py"))
    program = f"import sys; sys.path.insert(0, {str(SRC)!r}); import {modules}"
    done = subprocess.run([interpreter, "-I", "-S", "-B", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"Python {version} cannot import the agent:\n{done.stderr}"


def test_a_zygote_loads_the_standard_library_first() -> None:
    """All that the agent imports is imported by the module that lays out its memory, before any of it is there.

    What comes along with a seldom operation is no zygote's.
    """
    graph, loaded = import_graph(sources("src")), ["sandgate_agent.zygote", "sandgate_agent.artifact_reader"]
    for module in loaded:
        loaded += graph[module] - set(loaded)
    first = next(source for source in _agent_files() if source.module == "sandgate_agent.heap")

    def outside(source: Source) -> set[str]:
        names = {name for statement in imports(source, lazy=True) for name in imported_names(source, statement)}
        return {name.split(".")[0] for name in names} - {"sandgate_agent"}

    later = set().union(*map(outside, (source for source in _agent_files() if source.module in loaded))) - outside(
        first
    )
    assert not later, f"Import these in sandgate_agent/heap.py, too: {sorted(later)}"
