"""The installed command against a real server: run to its end, watched from outside, or on a terminal of its own."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAM = Path(sys.executable).with_name("sandgate")
LIMIT_S = 60.0
ROWS, COLUMNS = 20, 90
CTRL_C = b"\x03"

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class CommandLine:
    """A user's shell, in which ``home`` holds the logins."""

    home: Path

    def environ(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Its variables."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SANDGATE_")}
        return {**kept, "XDG_CONFIG_HOME": str(self.home), "TERM": "xterm-256color", **(more or {})}

    def run(self, *arguments: str, stdin: str = "", more: Mapping[str, str] | None = None) -> Done:
        """Run a command to its end."""
        return subprocess.run(
            [PROGRAM, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environ(more),
            check=False,
            timeout=LIMIT_S,
        )

    def expect(self, code: int, *arguments: str, stdin: str = "", more: Mapping[str, str] | None = None) -> Done:
        """Run a command that has to end with this code, and never with a traceback of its own."""
        done = self.run(*arguments, stdin=stdin, more=more)
        assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        assert "src/sandgate" not in done.stderr
        return done

    def read(self, *arguments: str) -> Any:
        """What a command says with ``--json``."""
        return json.loads(self.expect(0, *arguments, "--json").stdout)

    def workflow(self, *arguments: str, stdin: str = "") -> str:
        """What a command about workflows prints, without the newline."""
        return self.expect(0, "workflow", *arguments, stdin=stdin).stdout.strip()

    def start_in_background(self, *arguments: str) -> "subprocess.Popen[str]":
        """A command whose output is a pipe."""
        return subprocess.Popen(
            [PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environ(),
        )


class Terminal:
    """A command on a terminal of its own; ``shown`` is every byte that it sent there.

    ``before`` is how the terminal was when the command began.
    """

    def __init__(self, line: CommandLine, *arguments: str, term: str = "xterm-256color") -> None:
        self.shown = b""
        self.code: int | None = None
        # The command may change its terminal before its parent runs again, so that it waits until it is looked at.
        waits, goes = os.pipe()
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            os.close(goes)
            os.read(waits, 1)
            os.execve(PROGRAM, ["sandgate", *arguments], line.environ({"TERM": term}))
        os.close(waits)
        self.resize(ROWS, COLUMNS)
        self.before = self.settings()
        os.close(goes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.code is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._descriptor)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._descriptor, keys)

    def resize(self, rows: int, columns: int) -> None:
        """Give it another size, of which the kernel tells the command."""
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def settings(self) -> list[Any]:
        """How the terminal treats keys, and what else a program may change of it."""
        return termios.tcgetattr(self._descriptor)

    def wait_until_taken(self) -> None:
        """Wait until the command has changed the terminal; what was typed before that is thrown away."""
        deadline = time.monotonic() + LIMIT_S
        while self.settings() == self.before:
            assert time.monotonic() < deadline, f"the terminal was never taken: {self.shown!r}"
            time.sleep(0.005)  # waits: another process starts

    def send(self, number: int) -> None:
        """Send a signal to the command."""
        os.kill(self._pid, number)

    def wait_for(self, text: str) -> None:
        """Wait until this was shown."""
        deadline = time.monotonic() + LIMIT_S
        while text.encode() not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} never came: {self.shown!r}"
            assert self._read(), f"the command ended before {text!r} came: {self.shown!r}"

    def end(self) -> int:
        """Wait for the end of the command; its exit code."""
        while self._read():
            pass
        self.code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self.code

    def _read(self) -> bool:
        """More of what is shown; False at the end."""
        ready, _, _ = select.select([self._descriptor], [], [], LIMIT_S)
        assert ready, f"nothing more was shown: {self.shown!r}"
        try:
            piece = os.read(self._descriptor, 65_536)
        except OSError:  # How Linux says that nobody holds the other end any more.
            return False
        self.shown += piece
        return bool(piece)
