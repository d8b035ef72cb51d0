"""What holds for every test: abilities of the machine, a temporary folder of the run's own, nothing left behind."""

import gc
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.abilities import ABILITIES, must_have_everything
from tests.leaks import left_behind, still_left, take_stock

# Fixtures that put up the real walls.
_WALLED = {"standard_host": "needs_root_namespaces", "gvisor_host": "needs_gvisor"}
# By the ability that is lacking: why, and the tests that would have needed it.
_SKIPPED: dict[tuple[str, str], dict[str, None]] = {}

# The kernel frees namespaces and control groups a while after their last process.
CLEAN_UP_S = 10.0


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers of the abilities known."""
    for name, ability in ABILITIES.items():
        config.addinivalue_line("markers", f"{name}: {ability.help_text}")
    config.addinivalue_line("markers", "also_gvisor: of the tests of every class, one that the gvisor class takes, too")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test that needs walls and does not say so: elsewhere it would fail instead of being skipped."""
    for item in items:
        for fixture, marker in _WALLED.items():
            if fixture in getattr(item, "fixturenames", ()) and item.get_closest_marker(marker) is None:
                raise pytest.UsageError(f"{item.nodeid} needs the marker {marker}")


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
    gc.collect()
    before = take_stock()
    yield
    deadline = time.monotonic() + CLEAN_UP_S
    gc.collect()
    leaks = left_behind(before, take_stock())
    while leaks and time.monotonic() < deadline:
        time.sleep(0.05)  # waits: the kernel cleans up in its own time and tells nobody
        leaks = still_left(leaks, take_stock())
    if leaks:
        listed = "\n".join(f"  {kind}: {name}" for kind, names in leaks.items() for name in names)
        pytest.fail(f"The tests left this behind:\n{listed}", pytrace=False)
