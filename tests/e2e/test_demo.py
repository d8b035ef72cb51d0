"""``scripts/run`` shows a first execution, serves, and stops when it is told to."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.sandgate_server import free_port

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39]
END_S = 60


@pytest.fixture
def port() -> int:
    """A port for the server that is started."""
    return free_port()


@pytest.fixture
def shown(tmp_path: Path, port: int) -> Iterator["subprocess.Popen[str]"]:
    """The program, with what it prints."""
    command = [sys.executable, "-m", "sandgate.cli.demo", "--port", str(port), "--state", str(tmp_path / "state")]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SANDGATE_")}
    with subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as program:
        yield program
        if program.poll() is None:
            program.send_signal(signal.SIGTERM)


def _read_until(program: "subprocess.Popen[str]", last: str) -> str:
    assert program.stdout is not None
    lines: list[str] = []
    for line in program.stdout:
        lines.append(line)
        if line.startswith(last):
            break
    return "".join(lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_shows_serves_and_stops(shown: "subprocess.Popen[str]", port: int, number: signal.Signals) -> None:
    """The terminal shows output of code and its timing, the server answers, and a signal ends both in order."""
    text = _read_until(shown, "Stop")
    assert "Hello, World!" in text
    assert "files stay" in text
    assert re.search(r"ran a workflow, .*: succeeded", text)
    assert "ZeroDivisionError: division by zero" in text
    assert f"http://127.0.0.1:{port}/docs" in text
    assert "DOES NOT ISOLATE" not in text
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=END_S) as answer:
        assert json.load(answer)
    shown.send_signal(number)
    assert shown.wait(END_S) == 0
