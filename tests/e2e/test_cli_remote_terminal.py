"""``sandgate terminal`` on a real terminal: what is typed gets there, and the terminal is given back as it was."""

import signal
from collections.abc import Iterator

import pytest

from bench.sandgate_server import Server, create, delete
from tests.e2e.commands import COLUMNS, CTRL_C, ROWS, CommandLine, Terminal
from tests.e2e.test_cli import log_in

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39]
LEAVE = b"\x1d"
CURSOR_SHOWN = b"\x1b[?25h"


@pytest.fixture(scope="module")
def line(server: Server, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A shell that is logged in as the admin."""
    shell = CommandLine(tmp_path_factory.mktemp("home"))
    log_in(shell, server)
    return shell


@pytest.fixture(scope="module")
def environment_id(server: Server) -> Iterator[str]:
    """An environment for all tests of this file."""
    with server.connect() as connection:
        made = create(connection)
        yield made
        delete(connection, made)


def test_a_shell(line: CommandLine, environment_id: str) -> None:
    """It has the size of the terminal, and any later one; keys mean there what they do; its exit code is the end."""
    with Terminal(line, "terminal", environment_id) as terminal:
        terminal.wait_for("$ ")
        raw = terminal.settings()
        terminal.type(b"echo at-$((1+1)) $(stty size)\r")
        terminal.wait_for(f"at-2 {ROWS} {COLUMNS}\r\n")
        assert raw != terminal.before
        terminal.resize(50, 132)
        terminal.type(b'until [ "$(stty size)" = "50 132" ]; do :; done; echo large-$((1+1))\r')
        terminal.wait_for("large-2\r\n")
        # Said by what is to be interrupted: between two programs a shell may lose the key.
        terminal.type(b"sh -c 'echo sleeping-$((1+1)); exec sleep 300'\r")
        terminal.wait_for("sleeping-2\r\n")
        terminal.type(CTRL_C)
        terminal.type(b"echo on-$((1+1)); printf '\\033[?25l'; exit 7\r")
        terminal.wait_for("on-2\r\n")
        assert terminal.end() == 7
        assert terminal.settings() == terminal.before
    assert terminal.shown.endswith(CURSOR_SHOWN)


def test_a_process_is_left_and_goes_on(server: Server, line: CommandLine, environment_id: str) -> None:
    """With Ctrl-]; a signal that ends the command gives the terminal back, too."""
    path = f"/api/v1/sandbox/environments/{environment_id}/processes"
    with server.connect() as connection:
        process_id = connection.expect(201, "POST", path, {"argv": ["cat"], "pty": {"rows": 24, "cols": 80}})[
            "process_id"
        ]
        for code in (0, 128 + signal.SIGTERM):
            with Terminal(line, "terminal", environment_id, "--process", process_id) as terminal:
                terminal.wait_until_taken()
                terminal.type(b"typed\r")
                terminal.wait_for("typed\r\ntyped\r\n")
                terminal.send(signal.SIGTERM) if code else terminal.type(LEAVE)
                assert terminal.end() == code
                assert terminal.settings() == terminal.before
            assert (f"Left {environment_id}.".encode() in terminal.shown) == (code == 0)
        assert connection.expect(200, "GET", f"{path}/{process_id}")["status"] == "running"
        connection.expect(200, "DELETE", f"{path}/{process_id}")


def test_an_environment_that_ends_meanwhile(server: Server, line: CommandLine) -> None:
    """The command does, too, and the terminal is given back; one that is not there is said before."""
    with server.connect() as connection:
        environment_id = create(connection)
        with Terminal(line, "terminal", environment_id) as terminal:
            terminal.wait_for("$ ")
            delete(connection, environment_id)
            assert terminal.end() != 0
            assert terminal.settings() == terminal.before
    with Terminal(line, "terminal", environment_id) as terminal:
        assert terminal.end() == 1
    assert b"not found" in terminal.shown or b"no environment" in terminal.shown.lower()
