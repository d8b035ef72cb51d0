"""The command line in this process, on a state folder of the test's own."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandgate.auth import passwords
from sandgate.cli.main import run
from sandgate.telemetry import log
from tests.unit.auth.memory import CHEAP


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _as_at_a_clean_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from outside, cheap passwords, and the logging of the test run."""
    for name in list(os.environ):
        if name.startswith("SANDGATE_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(passwords, "PasswordCost", lambda: CHEAP)
    monkeypatch.setattr(log, "set_up_logging", lambda *_: None)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder that is not there yet."""
    return tmp_path / "state"


@pytest.fixture
def sandgate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, state: Path) -> Command:
    """Run a command on the state folder; ``stdin`` is what it can read."""

    def command(*arguments: str, stdin: str = "") -> Answer:
        source = state.parent / "stdin"
        source.write_text(stdin)
        with source.open() as opened:
            monkeypatch.setattr("sys.stdin", opened)
            monkeypatch.setenv("SANDGATE_STATE", str(state))
            code = run(arguments)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return command
