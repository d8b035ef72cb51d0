"""The commands about environments against a real server: life, code with its output and exit code, files."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.sandgate_server import Server, create, delete
from tests.e2e.command_shell import Shell
from tests.e2e.commands import LIMIT_S, PROGRAM, CommandLine
from tests.e2e.test_cli import log_in

pytestmark = [pytest.mark.needs_root_namespaces]


@pytest.fixture(scope="module")
def environment_id(server: Server) -> Iterator[str]:
    """An environment for the tests of code and files."""
    with server.connect() as connection:
        made = create(connection, "python")
        yield made
        delete(connection, made)


def names(line: Shell, *options: str) -> list[str]:
    """Of the environments that are listed."""
    return [row["name"] for row in line.read("environment", "list", *options)["environments"]]


def test_the_life_of_one(line: Shell) -> None:
    """Made with what it asks for, found by name, changed, paused, resumed, deleted; as text and as JSON."""
    asked = [
        "--metadata",
        "team=cli",
        "--env",
        "A=b=c",
        "--memory-mb",
        "64",
        "--on-timeout",
        "pause",
        "--timeout",
        "600",
    ]
    made = line.read("environment", "create", "life", *asked)
    assert (made["metadata"], made["env"], made["on_timeout"]) == ({"team": "cli"}, {"A": "b=c"}, "pause")
    assert names(line, "--metadata", "team=cli") == ["life"]
    listed = line.expect(0, "environment", "list", "--name", "life").stdout.splitlines()
    assert made["environment_id"] in listed[1]
    assert line.read("environment", "update", "life", "--idle-timeout", "60", "--name", "lives")["idle_timeout"] == 60
    assert "is paused" in line.expect(0, "environment", "pause", "lives").stdout
    assert json.loads(line.expect(0, "environment", "get", "lives").stdout)["status"] == "paused"
    assert line.read("environment", "resume", "lives")["status"] == "running"
    assert line.expect(0, "environment", "delete", "lives").stdout == f"{made['environment_id']} was deleted.\n"
    assert "No live environment of yours is called 'lives'" in line.expect(1, "environment", "get", "lives").stderr


def test_a_secret_reaches_code_and_is_never_shown(line: Shell) -> None:
    """From standard input, where it is no part of a command line that others see."""
    secret = "correct horse battery"
    assert (
        line.expect(0, "secret", "set", "CLI_TOKEN", "--value-stdin", stdin=f"{secret}\n").stdout
        == "CLI_TOKEN is set.\n"
    )
    assert [row["name"] for row in line.read("secret", "list")["secrets"]] == ["CLI_TOKEN"]
    shown = line.expect(0, "secret", "list").stdout
    assert "CLI_TOKEN" in shown
    assert secret not in shown
    place = line.expect(0, "environment", "create", "secretive", "--secret", "CLI_TOKEN").stdout.strip()
    code = "import os; print(os.environ['CLI_TOKEN'])"
    assert line.expect(0, "run", "-e", place, "-c", code).stdout == f"{secret}\n"
    line.expect(0, "environment", "delete", place)
    assert line.expect(0, "secret", "delete", "CLI_TOKEN").stdout == "CLI_TOKEN was deleted.\n"
    assert "terminal" in line.expect(2, "secret", "set", "CLI_TOKEN").stderr


def test_one_of_several_of_a_name(line: Shell) -> None:
    """Is not guessed."""
    both = [line.expect(0, "environment", "create", "twin").stdout.strip() for _each in range(2)]
    refused = line.expect(1, "environment", "delete", "twin").stderr
    assert all(each in refused for each in both)
    for each in both:
        line.expect(0, "environment", "delete", each)


@pytest.mark.parametrize(
    ("code", "more", "exit_code", "out", "err"),
    [
        ("import sys; print(*sys.argv[1:]); sys.exit(7)", ["--", "--x", "y"], 7, "--x y\n", ""),
        ("1 / 0", [], 1, "", "ZeroDivisionError"),
        ("import os; os.kill(os.getpid(), 9)", [], 137, "", ""),
    ],
)  # fmt: skip
def test_code_ends_as_it_does(
    line: Shell, environment_id: str, code: str, more: list[str], exit_code: int, out: str, err: str
) -> None:
    """Output on its stream, the exit code of the code."""
    done = line.expect(exit_code, "run", "-e", environment_id, "-c", code, *more)
    assert (done.stdout, err in done.stderr) == (out, True)


def test_what_comes_with_code(line: Shell, environment_id: str, tmp_path: Path) -> None:
    """A file's language by its name, input, variables, files, a folder; without an environment one of its own."""
    script = tmp_path / "s.sh"
    script.write_text('cat; echo "$WHO $1 $(cat in/data.txt)"; pwd; exit 3')
    (tmp_path / "data.txt").write_text("some data")
    options = ["--env", "WHO=me", "--file", f"{tmp_path}/data.txt:in/data.txt", "--stdin"]
    done = line.expect(3, "run", "-e", environment_id, *options, str(script), "arg", stdin="typed\n")
    assert done.stdout.splitlines()[:2] == ["typed", "me arg some data"]
    assert line.expect(0, "run", "-", stdin="print('alone')").stdout == "alone\n"
    assert "run" not in names(line)
    execution = json.loads(line.expect(5, "run", "-e", environment_id, "--json", "-c", "exit(5)").stdout)
    assert (execution["exit_code"], execution["status"]) == (5, "failed")


def test_limits_of_code_are_exit_codes(line: Shell, environment_id: str) -> None:
    """And sentences."""
    slow = line.expect(124, "run", "-e", environment_id, "--timeout", "0.3", "-c", "import time; time.sleep(60)")
    assert slow.stderr.endswith("sandgate: the time of the code was over\n")
    large = line.expect(137, "run", "-e", environment_id, "-c", "x = 'x' * 10**10; print(len(x))")
    assert "memory" in large.stderr.lower()


def test_a_session_keeps_what_it_knows(server: Server, line: Shell, environment_id: str) -> None:
    """And its results are shown."""
    with server.connect() as connection:
        path = f"/api/v1/sandbox/environments/{environment_id}/sessions"
        session_id = connection.expect(201, "POST", path, {})["session_id"]
    options = ["run", "-e", environment_id, "--session", session_id, "-c"]
    line.expect(0, *options, "x = 41")
    assert line.expect(0, *options, "print('first')\nx + 1").stdout == "first\n42\n"


def test_output_comes_while_code_runs_and_ctrl_c_cancels_it(
    server: Server, environment_id: str, tmp_path: Path
) -> None:
    """A pipe gets each piece at once; nothing runs on. With a login that was stored."""
    shell = CommandLine(tmp_path)
    log_in(shell, server)
    code = "import time\nprint('begun', flush=True)\ntime.sleep(300)"
    program = [str(PROGRAM), "run", "-e", environment_id, "--timeout", "400", "-c", code]
    with (
        subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=shell.environ()) as running,
        server.connect() as connection,
    ):
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        running.send_signal(signal.SIGINT)
        assert running.wait(LIMIT_S) == 130
        path = f"/api/v1/sandbox/environments/{environment_id}/executions?limit=1"
        deadline = time.monotonic() + LIMIT_S
        while (newest := connection.expect(200, "GET", path)["executions"][0])["status"] == "running":
            assert time.monotonic() < deadline
    assert newest["status"] == "cancelled"


def test_files_go_up_and_down(line: Shell, environment_id: str, tmp_path: Path) -> None:
    """Byte for byte, through pipes too; nothing is replaced unasked, and what fails leaves nothing."""
    content = os.urandom(1_500_000)
    (tmp_path / "up.bin").write_bytes(content)
    put = line.read("files", "put", environment_id, str(tmp_path / "up.bin"), "data/up.bin")
    assert (put["path"], put["size_bytes"]) == ("data/up.bin", len(content))
    line.expect(0, "files", "put", environment_id, "-", "data/typed.txt", stdin="typed")
    listed = line.read("files", "ls", environment_id, "data")["files"]
    assert [(entry["name"], entry["kind"]) for entry in listed] == [("typed.txt", "file"), ("up.bin", "file")]
    assert "up.bin" in line.expect(0, "files", "ls", environment_id, "data").stdout
    down = tmp_path / "down.bin"
    line.expect(0, "files", "get", environment_id, "data/up.bin", str(down))
    assert (down.read_bytes(), down.stat().st_mode & 0o777) == (content, 0o666 & ~_mask())
    assert line.expect(0, "files", "get", environment_id, "data/typed.txt", "-").stdout == "typed"
    assert "--force" in line.expect(2, "files", "get", environment_id, "data/typed.txt", str(down)).stderr
    line.expect(0, "files", "get", environment_id, "data/typed.txt", str(down), "--force")
    assert down.read_text() == "typed"
    line.expect(1, "files", "put", "--keep", environment_id, str(down), "data/up.bin")
    line.expect(1, "files", "get", environment_id, "no/such", str(tmp_path / "none"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["down.bin", "up.bin"]


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
