"""docs/security.md names, for each promise, tests that exist."""

import ast
import re
from functools import cache

from tests.repository.tree import ROOT, read_text

_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
_PROMISES = 10


@cache
def _tests_of(path: str) -> frozenset[str]:
    """The functions of a file of tests."""
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    return frozenset(each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))


def _section(heading: str) -> str:
    return read_text("docs/security.md").split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_named_tests_exist() -> None:
    """A wall that nobody tests any more is not told of."""
    named = set(_TEST.findall(read_text("docs/security.md")))
    missing = [f"{path}::{name}" for path, name in sorted(named) if name not in _tests_of(path)]
    assert not missing, f"docs/security.md names tests that are not there: {missing}"


def test_every_promise_is_proved() -> None:
    """Each of the promises is said once, and has tests."""
    promised = re.findall(r"^\| (\d+) \|", _section("What is promised"), re.MULTILINE)
    assert promised == [str(number) for number in range(1, _PROMISES + 1)]
    proved = dict(re.findall(r"^\| (\d+) \| (.*) \|$", _section("Which test proves it"), re.MULTILINE))
    assert set(proved) == set(promised)
    assert all(_TEST.search(tests) for tests in proved.values())


def test_every_file_of_attacks_is_told_of() -> None:
    """What tests/security tries stands in the document."""
    named = {path for path, _name in _TEST.findall(read_text("docs/security.md"))}
    there = {f"security/{path.name}" for path in (ROOT / "tests" / "security").glob("test_*.py")}
    assert there <= named
