"""The commands about sessions, processes and ports against a real server."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.sandgate_server import Server, create, delete
from sandgate.cli.main import run
from tests.e2e.command_shell import Shell
from tests.e2e.commands import LIMIT_S
from tests.e2e.conftest import DOMAIN

pytestmark = [pytest.mark.needs_root_namespaces]


@pytest.fixture(scope="module")
def environment_id(server: Server) -> Iterator[str]:
    """An environment for all of them."""
    with server.connect() as connection:
        made = create(connection, "python")
        yield made
        delete(connection, made)


def test_the_life_of_a_session(line: Shell, environment_id: str) -> None:
    """Begun, used, interrupted, made new, ended."""
    session_id = line.expect(0, "session", "create", environment_id, "--env", "A=b").stdout.strip()
    options = ["run", "-e", environment_id, "--session", session_id, "-c"]
    line.expect(0, *options, "x = 41")
    assert line.expect(0, *options, "import os; x + 1, os.environ['A']").stdout == "(42, 'b')\n"
    assert line.read("session", "list", environment_id)["sessions"][0]["executions"] == 2
    assert session_id in line.expect(0, "session", "list", environment_id).stdout
    assert line.expect(0, "session", "interrupt", environment_id, session_id).stdout == f"{session_id} is idle.\n"
    assert line.read("session", "restart", environment_id, session_id)["executions"] == 0
    line.expect(1, *options, "x")
    assert json.loads(line.expect(0, "session", "get", environment_id, session_id).stdout)["language"] == "python"
    assert line.expect(0, "session", "delete", environment_id, session_id).stdout == f"{session_id} has ended.\n"
    assert "SESSION" in line.expect(1, "session", "get", environment_id, session_id).stderr.upper()


def test_the_life_of_a_process(line: Shell, environment_id: str) -> None:
    """Started by words, fed, followed to its end; both of its streams and its exit code are as it had them."""
    code = "import sys; print(sys.argv[1], input()); print('gone', file=sys.stderr); sys.exit(5)"
    words = [environment_id, "python", "-c", code, "--name"]
    begun = line.read_before("process", "start", "--stdin", "--name", "echo", *words)
    assert (begun["name"], begun["status"]) == ("echo", "running")
    line.expect(0, "process", "input", environment_id, "echo", "--eof", stdin="typed\n")
    followed = line.expect(5, "process", "logs", environment_id, "echo", "--follow")
    assert (followed.stdout, followed.stderr) == ("--name typed\n", "gone\n")
    assert line.expect(0, "process", "logs", environment_id, "echo").stdout == "--name typed\n"
    assert "exited with 5" in line.expect(5, "process", "wait", environment_id, "echo").stdout
    assert json.loads(line.expect(0, "process", "get", environment_id, "echo").stdout)["exit_code"] == 5
    assert "No process there is called 'other'" in line.expect(1, "process", "get", environment_id, "other").stderr


def test_a_name_means_the_process_that_runs(line: Shell, environment_id: str) -> None:
    """Not one of the same name that has ended; signals end it, and kill ends what ignores them."""
    start = ["process", "start", "--name", "again", "-c"]
    line.expect(0, *start, "true", environment_id)
    line.expect(0, "process", "wait", environment_id, "again")
    second = line.expect(0, *start, "sleep 600", environment_id).stdout.strip()
    assert line.read("process", "signal", environment_id, "again", "int")["process_id"] == second
    assert "SIGINT" in line.expect(130, "process", "wait", environment_id, second).stdout
    third = line.expect(0, *start, "trap '' TERM; sleep 600", environment_id).stdout.strip()
    assert line.expect(0, "process", "kill", environment_id, "again").stdout.startswith(f"{third}: killed")
    listed = {row["process_id"]: row["status"] for row in line.read("process", "list", environment_id)["processes"]}
    assert (listed[second], listed[third]) == ("exited", "killed")
    assert "sleep 600" in line.expect(0, "process", "list", environment_id).stdout
    assert "Several processes are called" in line.expect(1, "process", "get", environment_id, "again").stderr


SERVER = """
import http.server


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if self.path == "/x?a=b" else 404, self.headers.get("X-Word", "").encode())

    def do_POST(self):
        self.answer(200, self.rfile.read(int(self.headers["Content-Length"])).upper())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


def test_a_server_inside_is_asked(
    line: Shell, server: Server, environment_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With headers, a body, its errors; and by a link without any credential."""
    ask = ["port", "ask", environment_id, "8000"]
    line.expect(0, "process", "start", "--name", "server", environment_id, "python", "-c", SERVER)
    deadline = time.monotonic() + LIMIT_S
    while run([*ask, "/x?a=b"]):
        assert time.monotonic() < deadline, "the server inside never listened"
        time.sleep(0.05)  # waits: another process starts
    capsys.readouterr()
    assert line.expect(0, *ask, "/x?a=b", "-H", "X-Word: heard").stdout == "heard"
    (tmp_path / "body").write_text("sent")
    assert line.expect(0, *ask, "--body", str(tmp_path / "body")).stdout == "SENT"
    assert "404" in line.expect(1, *ask, "/none").stderr
    assert "takes connections at port 8001" in line.expect(1, "port", "ask", environment_id, "8001").stderr
    made = line.read("port", "link", environment_id, "8000", "--expires-in", "60")
    shown = line.expect(0, "port", "link", environment_id, "8000").stdout
    assert shown.startswith(f"http://8000-{environment_id}.{DOMAIN}:{server.port}/?")
    assert made["port"] == 8000
    line.expect(0, "process", "kill", environment_id, "server")
