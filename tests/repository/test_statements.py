"""Statements that are allowed in few places."""

import ast
import re
from pathlib import Path

from tests.repository.tree import Source, enclosing_names, read_text, sources, tracked_files

BROAD = {"Exception", "BaseException"}
# The boundaries where everything has to be caught, and why. A new one needs a reason as good as these. Handlers that
# raise what they caught again hide nothing and need no entry.
BROAD_HANDLERS = {
    "sandgate.http.boundary:Boundary.__call__": "a request: a bug is answered with 500 and logged",
    "sandgate.environments.lifecycle:Lifecycle._create": "a claimed item: a bug ends the environment as failed",
    "sandgate.environments.lifecycle:Lifecycle._equip": "a claimed item, too: others go on",
    "sandgate.environments.builds.running_builds:RunningBuilds._run": "a claimed item: a bug fails that build alone",
    "sandgate.store.readers:read": "a claimed item: what a read raised is its outcome",
    "sandgate.store.writer:Writer._run": "a claimed item: a writer that cannot start tells who waits for it",
    "sandgate.store.writer:_try": "a claimed item: what a write raised is its outcome",
    "sandgate.workflows.engine:Engine._pump": "a claimed item: a bug that one run meets ends that run as failed",
    "sandgate.workflows.ticker:Ticker._serve": "a claimed item: a bug in one schedule leaves the others alone",
    "sandgate.cli.early_gateway:end_with": "a forked child: it must never go on as its parent would",
    "sandgate.sandbox.launcher.gvisor.container:Container._run": "a forked child, as the one of a zygote",
    "sandgate.sandbox.launcher.errand:_run": "a forked child: it must never go on as its parent would",
    "sandgate.sandbox.launcher.reactor:_call": "a claimed item: a bug that a sandbox meets ends that sandbox alone",
    "sandgate.sandbox.launcher.server:Launcher._act": "a request: a bug is answered with a refusal and logged",
    "sandgate.sandbox.launcher.jail:start_zygote": "a forked child: it must never go on as its parent would",
    "sandgate_agent.zygote:preload": "code of the template's packages, which may raise anything",
    "sandgate_agent.straight:make.run": "code of a user, and a forked child: it must never go on as its parent would",
    "sandgate_agent.child:_Run.run": "code of a user, which may raise anything",
    "sandgate_agent.failing:_leave": "the text of what a user's code ends with, which may raise anything",
    "sandgate_agent.failing:_fail": "the text of a user's exception, which may raise anything",
    "sandgate_agent.failing:_print": "a stream of the user's code, which may raise anything",
    "sandgate_agent.failing:_show": "a hook of the user's code, which may raise anything",
    "sandgate_agent.session:Session._execute": "code of a user, which may raise anything",
    "sandgate_agent.session:Session._fail": "the text of a user's exception, which may raise anything",
    "sandgate_agent.session:Session._show_what_was_drawn": "a figure of a user's, which may raise anything",
    "sandgate_agent.session_hooks:_show_figures": "a figure of a user's, which may raise anything",
    "sandgate_agent.session_errors:show": "a hook of the user's code, which may raise anything",
    "sandgate_agent.session_errors:print_error": "a stream of the user's code, which may raise anything",
    "sandgate_agent.session_display:_call": "methods of a user's objects, which may raise anything",
    "sandgate_agent.session_display:_mimebundle": "a method of a user's object, which may raise anything",
    "sandgate_agent.session_display:_records": "a library's object, which may raise anything",
    "sandgate_agent.straight:_make_finish.finish": "a stream of the user's code, which may raise anything",
    "sandgate_agent.child:_flush": "a stream of the user's code, which may raise anything",
}
REASON = "# waits:"


def _is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return caught is None or any(isinstance(name, ast.Name) and name.id in BROAD for name in names)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _broad_handlers() -> list[str]:
    return [
        f"{source.module}:{enclosing_names(source, node)}"
        for source in sources("src")
        for node in source.nodes
        if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not _raises_again(node)
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
    calls = [node for node in source.nodes if isinstance(node, ast.Call)]
    return [source.at(call) for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_only_the_command_line_prints() -> None:
    """The service speaks through its log; the terminal belongs to the command line."""
    printing = [p for source in sources("src") if not source.module.startswith("sandgate.cli") for p in _prints(source)]
    assert not printing, f"Log an event instead: {printing}"


def _sleeps(source: Source) -> list[str]:
    lines = source.text.splitlines()
    calls = [node for node in source.nodes if isinstance(node, ast.Call)]
    asleep = [call for call in calls if ast.unparse(call.func) == "time.sleep"]
    return [source.at(call) for call in asleep if REASON not in lines[call.lineno - 1]]


def test_tests_do_not_sleep_for_luck() -> None:
    """A test waits for the thing itself; where only time will do, the line says why."""
    asleep = [place for source in sources("tests") for place in _sleeps(source)]
    assert not asleep, f"Wait for what should happen, or add '{REASON} why' to the line: {asleep}"


def test_nothing_names_the_machine_it_was_written_on() -> None:
    """No tracked file holds a path or a package index of one machine."""
    # Put together here so that this file does not find itself.
    places = ["/work/" + "main", "/work/" + "shared", "/root/" + r"\.pyenv"]
    if Path.home() != Path("/root"):
        places.append(re.escape(f"{Path.home()}/"))
    hosts = ["pypi" + r"\.org", "pythonhosted" + r"\.org", "npmjs" + r"\.", "deb" + r"\.debian\.org"]
    machine = re.compile("|".join(places + hosts))
    found = {path: hit.group() for path in tracked_files() if (hit := machine.search(read_text(path)))}
    assert not found, f"Write what holds on every machine instead: {found}"


def test_nobody_waits_with_wait_for() -> None:
    """``asyncio.timeout`` does not swallow a cancellation that comes together with what was waited for."""
    found = [
        source.at(node)
        for source in sources("src")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and node.attr == "wait_for" and ast.unparse(node.value) == "asyncio"
    ]
    assert not found, f"Use asyncio.timeout instead of asyncio.wait_for: {found}"
