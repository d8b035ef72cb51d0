"""Words: what things are called, and what is said about them."""

import ast
import re

import pytest

from tests.repository.tree import Source, public_names, read_text, sources, tracked_files

VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "stuff", "lib", "shared"}
# Accessors come in pairs, and a declared overload repeats the function that it belongs to.
UNDOCUMENTED_DECORATORS = {"overload", "setter", "deleter", "override"}


@pytest.mark.parametrize("top", ["src", "tests", "bench", "scripts"])
def test_no_module_has_a_name_that_says_nothing(top: str) -> None:
    """A file's name says what is in it."""
    vague = [source.path for source in sources(top) if VAGUE & set(re.split(r"[./_]", source.module))]
    assert not vague, f"Name these after what they hold: {vague}"


def _decorators(node: ast.AST) -> set[str]:
    names = [ast.unparse(item).split("(")[0].split(".")[-1] for item in getattr(node, "decorator_list", [])]
    return set(names)


def _undocumented(source: Source) -> list[str]:
    missing = [] if ast.get_docstring(source.tree) else [source.path]
    for name, node in public_names(source):
        if not ast.get_docstring(node) and not _decorators(node) & UNDOCUMENTED_DECORATORS:
            missing.append(f"{source.at(node)} {name}")
    return missing


@pytest.mark.parametrize("top", ["src", "bench"])
def test_every_public_name_says_what_it_promises(top: str) -> None:
    """Modules, classes, functions and methods that others may use have a docstring."""
    missing = [place for source in sources(top) for place in _undocumented(source)]
    assert not missing, f"Write what these promise: {missing}"


def test_every_open_point_has_a_number() -> None:
    """What is to be done later is an issue, and its number stands in the text."""
    # The words are put together here so that this file does not find itself.
    loose = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b(?!\(#\d+\))")
    found = [path for path in tracked_files() if not path.endswith(".lock") and loose.search(read_text(path))]
    assert not found, f"File an issue and write its number behind the word, as in {'TO' + 'DO'}(#12): {found}"
