"""Where the walls cannot be put up: refused, unless allowed, and then said aloud."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from bench.sandgate_server import ENVIRONMENTS, Server, command, create, delete, execute, free_port
from sandgate.cli.privileges import find_closed
from sandgate.sandbox.probe import probe

LIMIT_S = 30
ROOT = Path(__file__).resolve().parents[2]


@cache
def without_walls() -> Sequence[str]:
    """What starts a program where no walls can be had: as root of a container that has no other user."""
    return ("unshare", "--user", "--map-root-user") if probe().can_hold_standard else ()


@pytest.fixture
def weak() -> Iterator[Server]:
    """A server in the process class."""
    with Server({"SANDGATE_ALLOW_WEAK_ISOLATION": "1"}, prefix=without_walls()) as running:
        yield running


@pytest.mark.needs_root
def test_code_of_a_server_of_root_runs_as_another_user() -> None:
    """Gateway and launcher give up root for a user each, find each other all the same, and code runs as the second."""
    if find_closed([Path(sys.prefix), Path(sys.base_prefix), ROOT]):
        pytest.skip("this checkout or its Python is in a folder that only root can enter")
    settings = {"SANDGATE_ALLOW_WEAK_ISOLATION": "1", "SANDGATE_ISOLATION": "process"}
    # Interpreters in the home of root would keep the code root's too.
    elsewhere = ("env", "HOME=/nonexistent", "PYENV_ROOT=/nonexistent", "UV_PYTHON_INSTALL_DIR=/nonexistent")
    with Server(settings, prefix=elsewhere) as running, running.connect() as connection:
        made = create(connection, "python")
        asked = {"code": "import os\nprint(os.getresuid(), os.getgroups())"}
        answer = connection.expect(200, "POST", f"{ENVIRONMENTS}/{made}/execute", asked)
        owner = running.state.stat().st_uid
    assert owner != 0
    assert answer["stdout"] == f"{(owner + 1,) * 3} []\n"


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SANDGATE_")}


def test_refused_unless_allowed(tmp_path: Path) -> None:
    """The refusal says what is missing and how it could be allowed, and serves nothing."""
    serve = [*without_walls(), command(), "serve", "--port", "0", "--state", str(tmp_path / "state")]
    done = subprocess.run(serve, env=_environ(), capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "cannot hold the standard class" in done.stderr
    assert "sandgate doctor" in done.stderr
    assert "SANDGATE_ALLOW_WEAK_ISOLATION=1" in done.stderr
    assert not (tmp_path / "state").exists()


def test_every_answer_says_so(weak: Server) -> None:
    """The server says it when it starts; environments and executions carry their class; limits of time still hold."""
    assert "WEAK ISOLATION" in weak.log.read_text()
    with weak.connect() as connection:
        made = create(connection, "python")
        assert connection.expect(200, "GET", f"{ENVIRONMENTS}/{made}")["isolation"] == "process"
        ran = execute(connection, made)
        assert (ran["stdout"], ran["isolation"]) == ("Hello, World!\n", "process")
        stubborn = {"code": "import os\nos.fork()\nprint('on')\nwhile True: pass", "timeout": 0.3}
        ended = connection.expect(200, "POST", f"{ENVIRONMENTS}/{made}/execute", stubborn)
        assert ended["status"] == "timed_out"
        delete(connection, made)


def test_the_demonstration_goes_on(tmp_path: Path) -> None:
    """``scripts/run`` shows all that it shows elsewhere, and says under it that nothing is isolated."""
    shown = [*without_walls(), sys.executable, "-m", "sandgate.cli.demo"]
    shown += ["--port", str(free_port()), "--state", str(tmp_path / "state")]
    with subprocess.Popen(shown, cwd=ROOT, env=_environ(), stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        text = ""
        for line in program.stdout:
            text += line
            if "sudo scripts/run" in line:
                break
        program.send_signal(signal.SIGTERM)
        assert program.wait(LIMIT_S) == 0
    assert "Hello, World!" in text
    assert "succeeded" in text
    assert "THIS SERVER DOES NOT ISOLATE" in text
