"""The installed command, in a process of its own."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("sandgate")


def environ(state: Path) -> dict[str, str]:
    """The variables of a clean terminal."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SANDGATE_")}
    return {**kept, "SANDGATE_STATE": str(state), "TERM": "dumb"}


def sandgate(state: Path, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the command."""
    return subprocess.run(
        [PROGRAM, *arguments], input=stdin, capture_output=True, text=True, env=environ(state), check=False
    )


def test_a_user_is_made_and_logs_only_to_stderr(tmp_path: Path) -> None:
    """From the shell, as a script would do it; what goes wrong is one line."""
    state = tmp_path / "state"
    made = sandgate(state, "user", "create", "ann", "--role", "admin", "--password-stdin", "--json", stdin="x" * 12)
    assert (made.returncode, made.stderr) == (0, "")
    assert json.loads(made.stdout)["name"] == "ann"
    again = sandgate(state, "user", "disable", "ann")
    assert (again.returncode, again.stdout) == (1, "")
    assert len(again.stderr.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_fault(tmp_path: Path) -> None:
    """``sandgate config | true`` prints no traceback."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [PROGRAM, "config"], stdout=write_end, stderr=subprocess.PIPE, text=True, env=environ(tmp_path), check=False
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, "")


def converse(terminal: int, steps: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Wait for each text in turn and answer it; what was shown on the terminal."""
    shown = b""
    for wanted, answer in steps:
        while wanted not in shown:
            ready, _, _ = select.select([terminal], [], [], 60)
            assert ready, f"{wanted!r} never came: {shown!r}"
            shown += os.read(terminal, 1000)
        os.write(terminal, answer)
    return shown


def test_a_password_is_asked_for_unseen(tmp_path: Path) -> None:
    """On a real terminal: twice, and not shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(PROGRAM, ["sandgate", "user", "create", "ann"], environ(tmp_path / "state"))
    code = None
    try:
        # The prompt ends with its space: what is typed before that is thrown away.
        answer = b"hunter2hunter2\n"
        shown = converse(terminal, [(b"Password: ", answer), (b"confirmation: ", answer), (b"was made.", b"")])
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        if code is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)
    assert (code, b"hunter2" in shown) == (0, False)
