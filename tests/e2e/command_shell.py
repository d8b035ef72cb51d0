"""A user's shell whose commands run in this process, which is several times as fast as one of their own."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandgate.cli.main import run


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


class Shell:
    """Runs commands as a user does who is logged in."""

    def __init__(self, capture: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, folder: Path) -> None:
        self._capture = capture
        self._patch = patch
        self._input = folder / "stdin"

    def expect(self, code: int, *arguments: str, stdin: str = "") -> Ended:
        """Run a command that has to end with this code."""
        self._input.write_text(stdin)
        with self._input.open() as opened:
            self._patch.setattr("sys.stdin", opened)
            ended = run(arguments)
        captured = self._capture.readouterr()
        assert ended == code, f"{arguments} ended with {ended}:\n{captured.out}\n{captured.err}"
        return Ended(ended, captured.out, captured.err)

    def read(self, *arguments: str) -> Any:
        """What a command says with ``--json``."""
        return json.loads(self.expect(0, *arguments, "--json").stdout)

    def read_before(self, group: str, name: str, *arguments: str) -> Any:
        """The same for a command whose options come before its arguments."""
        return json.loads(self.expect(0, group, name, "--json", *arguments).stdout)
