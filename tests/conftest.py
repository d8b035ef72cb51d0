"""What holds for every test: abilities of the machine, a temporary folder of the run's own, nothing left behind."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

from bench.sandgate_server import Server
from tests.abilities import ABILITIES, ALL_ON_GVISOR, must_have_everything
from tests.leaks import KINDS, OF_ONE_PROCESS, LeftBehind, nothing_is_left_behind
from tests.side_by_side import SIDE_BY_SIDE

# Fixtures that put up the real walls.
_WALLED = {"standard_host": "needs_root_namespaces", "gvisor_host": "needs_gvisor"}
# Parameters that are a class of isolation.
_OF_CLASSES = ("bench", "walled", "siege", "host", "isolation", "forks", "poisoned_host")
# By the ability that is lacking: why, and the tests that would have needed it.
_SKIPPED: dict[tuple[str, str], dict[str, None]] = {}

# How long an example takes says nothing on a machine that others keep busy; and the same are tried every time, so that
# a run says something of what was changed. Others are tried with --hypothesis-profile=others.
settings.register_profile("others", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("any machine", settings.get_profile("others"), derandomize=True)
settings.load_profile("any machine")

# Hundreds of servers live for some seconds each; none of them is asked for more at once.
Server.common = {"SANDGATE_SPARE_SANDBOXES": "16", "SANDGATE_MOST_SPARE_SANDBOXES": "64"}

# A shell lets what it starts in the background ignore these, and whatever that starts would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The whole of what both classes promise takes too long for every run."""
    parser.addoption(ALL_ON_GVISOR, action="store_true", help="leave out nothing of the gvisor class for being slow")


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers of the abilities known."""
    for name, ability in ABILITIES.items():
        config.addinivalue_line("markers", f"{name}: {ability.help_text}")
    config.addinivalue_line("markers", "not_on_gvisor(why): of the tests of every class, one without the gvisor class")
    config.addinivalue_line("markers", "attack: of tests/runtime, one beside a neighbour who has to answer afterwards")
    config.addinivalue_line("markers", "few_on_gvisor(name=[...]): its parameters that the gvisor class takes, too")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test that needs walls and does not say so: elsewhere it would fail instead of being skipped."""
    items[:] = [item for item in items if not _is_left_out(item)]
    for item in items:
        for fixture, marker in _WALLED.items():
            if fixture in getattr(item, "fixturenames", ()) and item.get_closest_marker(marker) is None:
                raise pytest.UsageError(f"{item.nodeid} needs the marker {marker}")


def _is_left_out(item: pytest.Item) -> bool:
    """Whether it is of the gvisor class, which is slow, with a parameter that this class is not tested with."""
    few = item.get_closest_marker("few_on_gvisor")
    parameters = getattr(item, "callspec", SimpleNamespace(params={})).params
    if (
        few is None
        or item.config.getoption(ALL_ON_GVISOR)
        or "gvisor" not in map(str, (parameters.get(name) for name in _OF_CLASSES))
    ):
        return False
    return any(parameters[name] not in taken for name, taken in few.kwargs.items())


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that this machine cannot run, or fail it where every test has to run."""
    for name in [mark.name for mark in item.iter_markers() if mark.name in ABILITIES]:
        lack = ABILITIES[name].find_lack()
        if lack and must_have_everything():
            pytest.fail(f"{name}: {lack}", pytrace=False)
        if lack:
            _SKIPPED.setdefault((name, lack), {})[item.nodeid.partition("[")[0]] = None
            pytest.skip(f"{name}: {lack}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say by name what this machine could not test, and why; each test once, whatever its parameters."""
    for (name, lack), tests in _SKIPPED.items():
        terminalreporter.section(f"{name}: {len(tests)} tests not run here")
        terminalreporter.write_line(lack)
        for test in tests:
            terminalreporter.write_line(f"  {test}")


@pytest.fixture(scope="session")
def _own_temporary_folder() -> Iterator[None]:
    """Everything that asks for a temporary folder gets one of this run's own; pytest's folders stay where they are."""
    usual = tempfile.gettempdir()
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", usual)
    own = Path(tempfile.mkdtemp(prefix="sgt-"))
    # Processes of the product run as other users and have to pass through.
    own.chmod(0o711)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(own))
        patch.setattr(tempfile, "tempdir", str(own))
        yield
    shutil.rmtree(own, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_behind(_own_temporary_folder: None) -> Iterator[None]:
    """Fails the run when processes, mounts, control groups, namespaces, descriptors or files outlive it."""
    # Of two runs, what started both looks for what cannot be told apart.
    kinds = OF_ONE_PROCESS if os.environ.get(SIDE_BY_SIDE) else tuple(KINDS)
    try:
        with nothing_is_left_behind(kinds):
            yield
    except LeftBehind as left:
        pytest.fail(str(left), pytrace=False)
