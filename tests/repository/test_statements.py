"""Statements that are allowed in few places."""

import ast
import re

import pytest

from tests.repository.tree import Source, enclosing_names, read_text, sources, tracked_files

BROAD = {"Exception", "BaseException"}
# The boundaries where everything has to be caught, and why. A new one needs a reason as good as these.
BROAD_HANDLERS: dict[str, str] = {}
WAITING = re.compile(r"\btime\.sleep\(")
REASON = "# waits:"


def _is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return caught is None or any(isinstance(name, ast.Name) and name.id in BROAD for name in names)


def _broad_handlers() -> list[str]:
    return [
        f"{source.module}:{enclosing_names(source, node)}"
        for source in sources("src")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler) and _is_broad(node)
    ]


def test_everything_is_caught_at_named_boundaries_only() -> None:
    """A broad ``except`` hides bugs, so each has its place and its reason in the list above."""
    unlisted = sorted(set(_broad_handlers()) - set(BROAD_HANDLERS))
    assert not unlisted, f"Catch the errors that can happen here, by name: {unlisted}"


def test_the_list_of_boundaries_is_current() -> None:
    """No entry outlives its handler."""
    stale = sorted(set(BROAD_HANDLERS) - set(_broad_handlers()))
    assert not stale, f"Take these out of BROAD_HANDLERS: {stale}"


def _prints(source: Source) -> list[str]:
    calls = [node for node in ast.walk(source.tree) if isinstance(node, ast.Call)]
    return [source.at(call) for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_only_the_command_line_prints() -> None:
    """The service speaks through its log; the terminal belongs to the command line."""
    printing = [p for source in sources("src") if not source.module.startswith("sandgate.cli") for p in _prints(source)]
    assert not printing, f"Log an event instead: {printing}"


@pytest.mark.parametrize("top", ["tests"])
def test_tests_do_not_sleep_for_luck(top: str) -> None:
    """A test waits for the thing itself; where only time will do, the line says why."""
    asleep = [
        f"{source.path}:{number}"
        for source in sources(top)
        for number, line in enumerate(source.text.splitlines(), 1)
        if WAITING.search(line) and REASON not in line
    ]
    assert not asleep, f"Wait for what should happen, or add '{REASON} why' to the line: {asleep}"


def test_nothing_names_the_machine_it_was_written_on() -> None:
    """No tracked file holds a path or a package index of one machine."""
    # Put together here so that this file does not find itself.
    places = ["/work/" + "main", "/work/" + "shared", "/root/" + r"\.", "/ho" + r"me/(?!sandgate\b|user\b|you\b)[a-z]"]
    hosts = ["pypi" + r"\.org", "pythonhosted" + r"\.org", "npmjs" + r"\.", "deb" + r"\.debian\.org"]
    machine = re.compile("|".join(places + hosts))
    found = {path: hit.group() for path in tracked_files() if (hit := machine.search(read_text(path)))}
    assert not found, f"Write what holds on every machine instead: {found}"
