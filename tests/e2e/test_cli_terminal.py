"""The client commands on a real terminal, and over a server that goes away: what is drawn, what Ctrl-C does."""

import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.sandgate_server import Server, make_folder
from tests.e2e.commands import COLUMNS, CTRL_C, LIMIT_S, CommandLine, Terminal
from tests.e2e.test_cli import log_in, make, url

pytestmark = [pytest.mark.needs_root_namespaces]
ORDERS = "\x1b]0;owned\x07\x1b[2J\x9b31m\r"
CURSOR_UP, CURSOR_SHOWN, CURSOR_HIDDEN = b"\x1b[1A", b"\x1b[?25h", b"\x1b[?25l"


def code(name: str, text: str, **more: Any) -> dict[str, Any]:
    """A step."""
    return {"name": name, "type": "code_execution", "config": {"code": text}, **more}


STEPS = {
    "name": "steps",
    "steps": [
        code("first", "print(1)"),
        {"name": "pause", "type": "approval"},
        code("each", "pass", foreach=[1, 2, 3]),
    ],
}
LONG = {"name": "long", "steps": [{"name": "pause", "type": "sleep", "config": {"seconds": 600}}]}
HOSTILE = {"name": "hostile", "steps": [code("bad", f"print({ORDERS!r})\nraise ValueError({ORDERS!r})")]}
SLOW = {
    "name": "slow",
    "steps": [code("a", "print('before')"), {"name": "pause", "type": "approval"}, code("b", "print('after')")],
}


@pytest.fixture(scope="module")
def line(server: Server, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A shell that is logged in as the admin."""
    shell = CommandLine(tmp_path_factory.mktemp("home"))
    log_in(shell, server)
    return shell


def approve(line: CommandLine, identity: str) -> None:
    """Let the only run of a workflow go on."""
    (run,) = line.read("workflow", "runs", "-w", identity)["runs"]
    line.workflow("approve", run["run_id"])


def test_the_password_is_not_shown(server: Server, tmp_path: Path) -> None:
    """Address, name and password are asked for; only the first two are seen."""
    shell = CommandLine(tmp_path)
    with Terminal(shell, "login") as terminal:
        for question, answer in (("Server", url(server)), ("User name", "admin"), ("Password: ", server.password)):
            terminal.wait_for(question)
            terminal.type(f"{answer}\n".encode())
        assert terminal.end() == 0
    assert server.password.encode() not in terminal.shown
    assert b"Logged in to" in terminal.shown


def test_steps_are_redrawn_in_place(line: CommandLine) -> None:
    """The picture moves up over itself, shows steps while they wait, and stays whole at the end; so does the cursor."""
    identity = make(line, STEPS)
    with Terminal(line, "workflow", "start", identity, "--follow") as terminal:
        terminal.wait_for("waiting")
        approve(line, identity)
        assert terminal.end() == 0
    assert terminal.shown.count(CURSOR_UP) >= 3
    assert terminal.shown.index(CURSOR_HIDDEN) < terminal.shown.rindex(CURSOR_SHOWN)
    last = terminal.shown.rpartition(CURSOR_UP)[2].decode()
    rows = [row for row in last.splitlines() if "succeeded" in row]
    assert [name for name in ("steps", "first", "pause", "each") if any(name in row for row in rows)] == [
        "steps", "first", "pause", "each",
    ]  # fmt: skip
    assert "3 of 3 items" in last
    assert terminal.shown.endswith((b"\r\n" + CURSOR_SHOWN, CURSOR_SHOWN, b"\r\n"))


def test_a_terminal_without_powers_gets_lines(line: CommandLine) -> None:
    """One for each change, and nothing that moves."""
    identity = make(line, STEPS)
    with Terminal(line, "workflow", "start", identity, "--follow", term="dumb") as terminal:
        terminal.wait_for("pause waiting")
        approve(line, identity)
        assert terminal.end() == 0
    assert b"\x1b" not in terminal.shown
    assert b"pause waiting" in terminal.shown
    assert b"each succeeded" in terminal.shown


def test_ctrl_c_leaves_the_run_going(line: CommandLine) -> None:
    """Nothing is asked; it is said how to go on watching; the cursor is back."""
    with Terminal(line, "workflow", "start", make(line, LONG), "--follow") as terminal:
        terminal.wait_for("waiting")
        terminal.type(CTRL_C)
        assert terminal.end() == 130
    run = line.read("workflow", "runs", "--limit", "1")["runs"][0]
    assert f"watch it with: sandgate workflow status {run['run_id']}" in terminal.shown.decode()
    assert terminal.shown.rindex(CURSOR_SHOWN) > terminal.shown.rindex(CURSOR_HIDDEN)
    assert b"Traceback" not in terminal.shown
    assert line.read("workflow", "status", run["run_id"])["status"] == "waiting"
    line.workflow("cancel", run["run_id"])


def test_a_request_to_end_leaves_the_terminal_in_order(line: CommandLine) -> None:
    """The cursor is back after SIGTERM too."""
    run = line.workflow("start", make(line, LONG))
    with Terminal(line, "workflow", "status", run) as terminal:
        terminal.wait_for("waiting")
        terminal.send(signal.SIGTERM)
        assert terminal.end() == 128 + signal.SIGTERM
    assert terminal.shown.rindex(CURSOR_SHOWN) > terminal.shown.rindex(CURSOR_HIDDEN)
    line.workflow("cancel", run)


def test_what_code_prints_does_not_command_the_terminal(line: CommandLine) -> None:
    """In the picture, in logs and in what is printed once, its orders are spelled out; --raw and a pipe have them."""
    run = line.expect(6, "workflow", "start", make(line, HOSTILE), "--wait").stdout.split()[0]
    for arguments, exit_code in ((["status", run], 6), (["status", run, "--no-follow"], 0), (["logs", run], 0)):
        with Terminal(line, "workflow", *arguments) as terminal:
            assert terminal.end() == exit_code
        assert b"\x1b]0;" not in terminal.shown
        assert b"\x07" not in terminal.shown
        assert b"\x1b[2J" not in terminal.shown
        assert "\x9b31m".encode() not in terminal.shown
        assert rb"\x1b]0;owned\x07" in terminal.shown
    with Terminal(line, "workflow", "logs", run, "--raw") as terminal:
        assert terminal.end() == 0
    assert b"\x1b]0;owned\x07" in terminal.shown
    assert ORDERS in line.expect(0, "workflow", "logs", run, "--step", "bad").stdout.replace("\n", "\r")


def test_no_picture_is_wider_than_the_terminal(line: CommandLine) -> None:
    """A line that wraps would be redrawn at the wrong place."""
    wide = {"name": "n" * 120, "steps": [code("s" * 60, f"raise ValueError({'x' * 500!r})")]}
    identity = make(line, wide)
    with Terminal(line, "workflow", "start", identity, "--follow") as terminal:
        assert terminal.end() == 6
    last = terminal.shown.rpartition(CURSOR_UP)[2].decode()
    assert max(len(row) for row in without_colours(last).splitlines()) <= COLUMNS


def without_colours(text: str) -> str:
    """The text as it is seen."""
    parts = text.split("\x1b[")
    return parts[0] + "".join(part[next(i for i, c in enumerate(part) if c.isalpha()) + 1 :] for part in parts[1:])


class Reader:
    """The lines of a command in the background, as they come."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self.text = ""
        self._process = process
        self._descriptor = process.stdout.fileno()

    def wait_for(self, wanted: str) -> None:
        """Wait until this was printed."""
        deadline = time.monotonic() + LIMIT_S
        while wanted not in self.text:
            assert time.monotonic() < deadline, f"{wanted!r} never came: {self.text!r}"
            assert self._read(), f"the command ended before {wanted!r} came: {self.text!r}"

    def end(self) -> int:
        """The exit code."""
        while self._read():
            pass
        return self._process.wait(LIMIT_S)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], LIMIT_S)
        piece = os.read(self._descriptor, 65_536) if ready else b""
        self.text += piece.decode()
        return bool(piece)


@pytest.fixture
def restarted() -> Iterator[Server]:
    """A server whose folder outlives it."""
    folder = make_folder()
    server = Server(folder=folder)
    try:
        with server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_server_that_restarts_is_watched_on(restarted: Server, tmp_path: Path) -> None:
    """Watching and reading logs go on where they were, each line once, to the end of the run."""
    shell = CommandLine(tmp_path / "home")
    log_in(shell, restarted)
    run = shell.workflow("start", make(shell, SLOW))
    commands = (["status", run, "--follow"], ["logs", run, "--follow"])
    with (
        shell.start_in_background("workflow", *commands[0]) as watching,
        shell.start_in_background("workflow", *commands[1]) as logging,
    ):
        status, logs = Reader(watching), Reader(logging)
        try:
            status.wait_for("pause waiting")
            logs.wait_for("a | before")
            restarted.stop()
            status.wait_for("trying again")
            logs.wait_for("trying again")
            restarted.start()
            shell.workflow("approve", run)
            assert (status.end(), logs.end()) == (0, 0)
        finally:
            watching.kill()
            logging.kill()
    assert f"{run} succeeded" in status.text
    assert [logs.text.count(text) for text in ("a | before\n", "b | after\n")] == [1, 1]
    assert status.text.count("pause waiting") == 1


def test_output_is_seen_while_code_runs(line: CommandLine) -> None:
    """Long before the step ends, from both streams; cancelling ends the watching with what the run has become."""
    text = "import sys, time\nprint('out')\nprint('err', file=sys.stderr)\ntime.sleep(600)"
    run = line.workflow("start", make(line, {"name": "talks", "steps": [code("a", text, timeout=600)]}))
    with line.start_in_background("workflow", "logs", run, "--follow") as process:
        reader = Reader(process)
        reader.wait_for("a | out\n")
        reader.wait_for("a | err\n")
        line.workflow("cancel", run)
        assert reader.end() == 6
    assert (reader.text.count("a | out"), reader.text.count("a | err")) == (1, 1)


def test_ctrl_c_in_a_pipe_leaves_the_run_going(line: CommandLine) -> None:
    """The same without a terminal; a script reads the id from the message."""
    run = json.loads(line.workflow("start", make(line, LONG), "--json"))["run_id"]
    with line.start_in_background("workflow", "status", run, "--follow") as process:
        reader = Reader(process)
        reader.wait_for("pause waiting")
        process.send_signal(signal.SIGINT)
        assert reader.end() == 130
    assert f"{run} goes on" in reader.text
    assert line.read("workflow", "status", run)["status"] == "waiting"
    line.workflow("cancel", run)
