"""What this machine can do, asked in one place, so that a test that needs more is skipped by name and reason.

A test says what it needs with a marker (``@pytest.mark.needs_root_namespaces``). Where the ability is missing the
test is skipped; on a continuous-integration machine with root it fails instead, so that a wall is never left untested.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from sandgate.sandbox.interpreters import find_interpreters

ALL_ON_GVISOR = "--all-on-gvisor"
SLOW = "slow"


def is_tried_on_gvisor(test: pytest.Metafunc) -> bool:
    """Whether a test of every class is one of the gvisor class: its marker says why it is not."""
    marker = test.definition.get_closest_marker("not_on_gvisor")
    return marker is None or (marker.args[0].startswith(SLOW) and bool(test.config.getoption(ALL_ON_GVISOR)))


@dataclass(frozen=True, slots=True)
class Ability:
    """Something a test may need; ``find_lack`` answers None, or what is missing and what brings it."""

    help_text: str
    find_lack: Callable[[], str | None]


def _lacks_root() -> str | None:
    return None if os.geteuid() == 0 else "this user is not root; run the tests as root"


@cache
def _lacks_standard_class() -> str | None:
    """Asks the product's own probe, which tries the walls instead of guessing from versions."""
    from sandgate.sandbox import probe

    found = probe.probe()
    return None if found.can_hold_standard else f"the standard class cannot be held here: {found}"


@cache
def _lacks_gvisor() -> str | None:
    """What the gvisor class needs beyond the standard class, whose walls it stands in."""
    from sandgate.sandbox.launcher.gvisor.runsc import find_runsc

    runsc = find_runsc()
    if runsc is None:
        return "runsc was not found; install the package runsc"
    if not runsc.platform:
        return f"runsc {runsc.version} has no platform that can be used; it has: {', '.join(runsc.platforms) or 'none'}"
    return _lacks_standard_class()


def find_postgresql() -> Path | None:
    """The folder of PostgreSQL's server programs, the newest where there are several."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    on_path = shutil.which("initdb")
    candidates = [*reversed(folders), *([Path(on_path).resolve().parent] if on_path else [])]
    return next((folder for folder in candidates if (folder / "postgres").exists()), None)


def _lacks_postgresql() -> str | None:
    return None if find_postgresql() else "no PostgreSQL server programs were found; install the package postgresql"


def find_interpreter(version: str) -> str | None:
    """An interpreter of this version (``3.9``), as the product itself would find it."""
    found = find_interpreters().get(version)
    return found.executable if found else None


def _lacks_python39() -> str | None:
    return None if find_interpreter("3.9") else "no Python 3.9 was found; run: sandgate template install python-3.9"


@cache
def _lacks_own_python() -> str | None:
    """What is installed beside the tests runs in no other version."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = find_interpreter(version)
    if found is None:
        return f"no Python {version} was found as a template, which is what the tests run in"
    asked = [found, "-I", "-m", "pip", "--version"]
    has_pip = subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode == 0
    return None if has_pip else f"{found} has no pip; install the package python3-pip"


def _lacks_curl() -> str | None:
    return None if shutil.which("curl") else "curl was not found; install the package curl"


def _lacks_apt() -> str | None:
    lacking = [name for name in ("apt-get", "dpkg", "dpkg-deb", "start-stop-daemon") if shutil.which(name) is None]
    return f"there is no {' and no '.join(lacking)} on this machine" if lacking else None


ABILITIES: Mapping[str, Ability] = {
    "needs_root": Ability("needs root", _lacks_root),
    "needs_root_namespaces": Ability("needs root and every wall of the standard class", _lacks_standard_class),
    "needs_gvisor": Ability("needs root, every wall of the standard class, and runsc", _lacks_gvisor),
    "needs_postgresql": Ability("needs PostgreSQL's server programs", _lacks_postgresql),
    "needs_curl": Ability("needs curl, to type what the documents show", _lacks_curl),
    "needs_own_python": Ability("needs a template of the Python that the tests run in, with pip", _lacks_own_python),
    "needs_apt": Ability("needs apt and dpkg, to have them in a root file system", _lacks_apt),
    "needs_python39": Ability("needs a Python 3.9 for the template python-3.9", _lacks_python39),
}


def must_have_everything() -> bool:
    """Whether a missing ability is a failure here instead of a reason to skip."""
    return os.environ.get("CI") == "true" and os.geteuid() == 0
