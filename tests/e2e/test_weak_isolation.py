"""Where the walls cannot be put up: refused, unless allowed, and then said aloud."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from bench.sandgate_server import ENVIRONMENTS, Server, command, create, delete, execute, free_port, make_folder
from sandgate.cli.privileges import find_closed
from sandgate.sandbox.probe import probe

LIMIT_S = 60
PROCESS = {"SANDGATE_ALLOW_WEAK_ISOLATION": "1", "SANDGATE_ISOLATION": "process"}
# Interpreters in the home of root could not be read by another user.
SYSTEM_PYTHON = ("env", "HOME=/nonexistent", "PYENV_ROOT=/nonexistent", "UV_PYTHON_INSTALL_DIR=/nonexistent")
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


def _skip_where_only_root_can_read() -> None:
    if find_closed([Path(sys.prefix), Path(sys.base_prefix), ROOT]):
        pytest.skip("this checkout or its Python is in a folder that only root can enter")


@pytest.mark.needs_root
def test_a_server_of_an_ordinary_user_keeps_what_it_holds() -> None:
    """Code that runs as the same user cannot look into the gateway, and no process leaves an image when it dies."""
    _skip_where_only_root_can_read()
    folder = make_folder()
    os.chown(folder, 65534, 65534)
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *SYSTEM_PYTHON)
    with Server(PROCESS, folder, prefix=user) as running, running.connect() as connection:
        made = create(connection, "python")
        processes = running.listeners()
        names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in processes}
        (gateway,) = (pid for pid, name in names.items() if name == "sg-gateway")
        asked = {"code": f"import os\nprint(os.getuid())\nopen('/proc/{gateway}/environ', 'rb').read()"}
        answer = connection.expect(200, "POST", f"{ENVIRONMENTS}/{made}/execute", asked)
        limits = [Path(f"/proc/{pid}/limits").read_text() for pid in processes]
    shutil.rmtree(folder)
    assert (answer["stdout"], answer["error"]["name"]) == ("65534\n", "PermissionError")
    assert all(re.search(r"^Max core file size +1 +1 ", each, re.MULTILINE) for each in limits)


@pytest.mark.needs_root
def test_code_of_a_server_of_root_runs_as_another_user() -> None:
    """Gateway and launcher give up root for a user each, find each other all the same, and code runs as the second."""
    _skip_where_only_root_can_read()
    with Server(PROCESS, prefix=SYSTEM_PYTHON) as running, running.connect() as connection:
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
