"""The client commands against a real server: logging in, definitions, runs, exit codes."""

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from bench.sandgate_server import Server, free_port
from tests.e2e.commands import CommandLine
from tests.e2e.waiting import until

pytestmark = [pytest.mark.needs_root_namespaces]
HELLO = """\
name: {name}
inputs:
  who: {{type: string, default: World}}
  times: {{type: integer, default: 1}}
steps:
  - name: greet
    type: code_execution
    config:
      inputs: {{who: "${{{{ inputs.who }}}}", times: "${{{{ inputs.times }}}}"}}
      code: |
        for _ in range(inputs['times']):
            print(f"Hello, {{inputs['who']}}!")
"""
FAILS = {"name": "fails", "steps": [{"name": "bad", "type": "code_execution", "config": {"code": "1 / 0"}}]}
ASKS = {
    "name": "asks",
    "steps": [
        {"name": "ask", "type": "approval", "config": {"message": "May I?"}},
        {"name": "go", "type": "code_execution", "config": {"code": "print('gone')"}},
    ],
}
BAD = """\
name: bad
steps:
  - name: a
    type: code_execution
    nedds: []
    config: {code: print(1)}
  - name: b
    type: sleep
    config:
      seconds: soon
"""


@pytest.fixture(scope="module")
def line(server: Server, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A shell that is logged in as the admin."""
    shell = CommandLine(tmp_path_factory.mktemp("home"))
    log_in(shell, server)
    return shell


@pytest.fixture
def stranger(tmp_path: Path) -> CommandLine:
    """A shell that is not."""
    return CommandLine(tmp_path / "home")


def url(server: Server) -> str:
    """Where the server is."""
    return f"http://127.0.0.1:{server.port}"


def log_in(shell: CommandLine, server: Server, *options: str, user: str = "admin", password: str = "") -> None:
    """Log in as a script does it."""
    stdin = f"{password or server.password}\n"
    shell.expect(0, "login", url(server), "--username", user, "--password-stdin", *options, stdin=stdin)


def write(folder: Path, text: str, name: str = "w.yaml") -> str:
    """A file's path."""
    (folder / name).write_text(text)
    return str(folder / name)


def make(line: CommandLine, definition: dict[str, Any] | str) -> str:
    """A workflow, made from standard input; its id."""
    text = definition if isinstance(definition, str) else json.dumps(definition)
    done = line.expect(0, "workflow", "create", "-", "--json", stdin=text)
    identity: str = json.loads(done.stdout)["workflow_id"]
    return identity


def keys_of(server: Server) -> set[str]:
    """The admin's API keys on the server."""
    with server.connect() as connection:
        return {key["api_key_id"] for key in connection.expect(200, "GET", "/api/v1/auth/api-keys")["api_keys"]}


def test_logging_in_keeps_a_key_and_no_password(server: Server, stranger: CommandLine) -> None:
    """The file is the owner's only; a login again replaces the key, and logging out ends it on the server."""
    before = keys_of(server)
    log_in(stranger, server, "--expires-days", "2")
    path = stranger.home / "sandgate" / "credentials.json"
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    assert server.password not in path.read_text()
    (first,) = keys_of(server) - before
    assert stranger.read("whoami") | {"user_id": ""} == {
        "url": url(server), "profile": "default", "user_id": "", "username": "admin", "role": "admin",
        "credential": "api_key",
    }  # fmt: skip
    log_in(stranger, server)
    (second,) = keys_of(server) - before
    assert first != second
    stranger.expect(0, "logout")
    assert keys_of(server) == before
    assert "sandgate login" in stranger.expect(4, "whoami").stderr
    stranger.expect(0, "logout")


def test_logins_side_by_side(server: Server, stranger: CommandLine) -> None:
    """Each by its name; a key that was given is not ended by logging out."""
    with server.connect() as connection:
        key = connection.expect(201, "POST", "/api/v1/auth/api-keys", {"label": "ci"})
    stranger.expect(0, "login", url(server), "--api-key-stdin", "--profile", "ci", stdin=key["api_key"] + "\n")
    assert stranger.read("whoami", "--profile", "ci")["profile"] == "ci"
    stranger.expect(4, "whoami")
    stranger.expect(0, "logout", "--profile", "ci")
    assert key["api_key_id"] in keys_of(server)
    given = {"SANDGATE_URL": url(server), "SANDGATE_API_KEY": key["api_key"]}
    assert "by variables" in stranger.expect(0, "whoami", more=given).stdout


def test_a_viewer_gets_in_too(server: Server, stranger: CommandLine) -> None:
    """With the token itself, since viewers make no keys; what they may not do is refused in the server's words."""
    with server.connect() as connection:
        wanted = {"username": "viewer-1", "password": "correct horse battery", "role": "viewer"}
        connection.expect(201, "POST", "/api/v1/users", wanted)
    log_in(stranger, server, user="viewer-1", password="correct horse battery")
    assert stranger.read("whoami")["credential"] == "token"
    assert stranger.read("workflow", "list") == {"workflows": []}
    assert "viewer" in stranger.expect(1, "workflow", "create", "-", stdin=json.dumps(FAILS)).stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (["login", "URL", "-u", "admin", "--password-stdin"], "wrong\n", 4, "do not belong together"),
        (["login", "URL", "-u", "admin"], "", 2, "--password-stdin"),
        (["login", "URL"], "", 2, "--username"),
        (["login", "URL", "--api-key-stdin"], "sgk_wrong\n", 4, "not valid"),
        (["login", "URL", "--api-key-stdin"], "a b\n", 2, "characters that none has"),
        (["login", "URL", "--api-key-stdin", "--password-stdin"], "", 2, "not both"),
        (["login", "nowhere", "-u", "a", "--password-stdin"], "x\n", 2, "not the address of a server"),
        (["login", "FREE", "-u", "a", "--password-stdin"], "x\n", 5, "cannot be reached"),
        (["login", "URL/docs", "-u", "a", "--password-stdin"], "x\n", 1, "There is nothing at"),
        (["workflow", "list", "--profile", "a/b"], "", 2, "no name of a login"),
    ],
)
def test_a_login_that_fails_leaves_nothing(
    server: Server, stranger: CommandLine, arguments: list[str], stdin: str, code: int, said: str
) -> None:
    """The exit code says what kind of failure it is, one line says which."""
    places = {"URL": url(server), "URL/docs": f"{url(server)}/docs", "FREE": f"http://127.0.0.1:{free_port()}"}
    done = stranger.expect(code, *[places.get(each, each) for each in arguments], stdin=stdin)
    assert said in done.stderr
    assert done.stdout == ""
    assert not stranger.home.exists()


def test_what_is_wrong_with_a_file_is_said_with_its_lines(line: CommandLine, tmp_path: Path) -> None:
    """All at once, as compilers write it, for people and for programs, whether it is made or only looked at."""
    path = write(tmp_path, BAD)
    expected = {(5, "/steps/0/nedds"), (10, "/steps/1/config/seconds")}
    for command in (["validate", path], ["create", path], ["update", make(line, FAILS), path]):
        done = line.expect(1, "workflow", *command)
        found = re.findall(rf"^{re.escape(path)}:(\d+): (/\S+): .+$", done.stderr, re.MULTILINE)
        assert {(int(number), pointer) for number, pointer in found} == expected
    answer = json.loads(line.expect(1, "workflow", "validate", path, "--json").stdout)
    assert {(each["line"], each["pointer"]) for each in answer["problems"]} == expected
    assert answer["valid"] is False
    twice = line.expect(1, "workflow", "validate", write(tmp_path, "name: a\nname: b\n"))
    assert ":2: the key 'name' is given twice" in twice.stderr
    assert line.expect(2, "workflow", "validate", str(tmp_path / "nothing.yaml")).stdout == ""


def test_a_workflow_lives_from_its_file_to_its_end(line: CommandLine, tmp_path: Path) -> None:
    """Looked at, made, started by name with inputs, shown, changed, deleted."""
    path = write(tmp_path, HELLO.format(name="life"))
    assert "1. greet" in line.workflow("validate", path)
    assert line.read("workflow", "validate", path)["plan"]["levels"] == [["greet"]]
    identity = line.workflow("create", path).split()[-1]
    run = line.read("workflow", "start", "life", "-i", "who=Ann", "-i", "times=2", "--wait")
    assert (run["status"], run["inputs"]) == ("succeeded", {"who": "Ann", "times": 2})
    assert line.workflow("logs", run["run_id"]) == "greet | Hello, Ann!\ngreet | Hello, Ann!"
    inputs = write(tmp_path, "who: Ben\ntimes: 3\n", "inputs.yaml")
    other = line.workflow("start", identity, "--inputs", inputs, "-i", "times=1", "--wait").split()[0]
    assert line.workflow("logs", other, "--step", "greet") == "Hello, Ben!"
    assert f"{other} succeeded" in line.workflow("status", other)
    assert "greet" in line.workflow("status", "life", "--follow")
    assert [each["run_id"] for each in line.read("workflow", "runs", "-w", "life")["runs"]] == [other, run["run_id"]]
    assert line.read("workflow", "runs", "-w", identity, "--status", "failed") == {"runs": []}
    assert "version 2" in line.workflow("update", "life", path)
    assert json.loads(line.workflow("get", "life"))["definition"]["name"] == "life"
    assert line.read("workflow", "list", "--name", "life")["workflows"][0]["version"] == 2
    line.workflow("delete", "life")
    assert "No workflow of yours is called 'life'" in line.expect(1, "workflow", "status", "life").stderr


def test_a_run_that_fails_has_an_exit_code_of_its_own(line: CommandLine) -> None:
    """When it was waited for or watched; looking at it once is no failure."""
    identity = make(line, FAILS)
    for options in (["--wait"], ["--follow"], ["--wait", "--json"]):
        done = line.expect(6, "workflow", "start", identity, *options)
        assert "failed" in done.stdout
    assert "ZeroDivisionError" in line.expect(0, "workflow", "status", identity).stdout
    assert line.expect(6, "workflow", "status", identity, "--follow").returncode == 6
    run = line.read("workflow", "status", identity)
    assert "ZeroDivisionError: division by zero" in line.expect(6, "workflow", "logs", run["run_id"], "-f").stderr


def test_a_run_that_failed_is_run_again(line: CommandLine) -> None:
    """From the step that failed; one that succeeded is refused."""
    run = json.loads(line.expect(6, "workflow", "start", make(line, FAILS), "--wait", "--json").stdout)
    assert f"{run['run_id']} is " in line.workflow("retry", run["run_id"])
    again = json.loads(line.expect(6, "workflow", "status", run["run_id"], "--follow", "--json").stdout)
    assert again["steps"][0]["attempts"] > run["steps"][0]["attempts"]
    fine = line.workflow("start", make(line, HELLO.format(name="fine")), "--wait").split()[0]
    line.expect(1, "workflow", "retry", fine)


def test_approvals_are_given_refused_and_cancelled(line: CommandLine) -> None:
    """The step may be left out; what cannot be decided is refused."""
    identity = make(line, ASKS)
    runs = [line.workflow("start", identity) for _ in range(3)]
    listed = ["workflow", "runs", "-w", identity]
    until(lambda: {run["status"] for run in line.read(*listed)["runs"]} == {"waiting"}, "all runs wait")
    assert "approve" in line.workflow("status", runs[0])
    assert "was approved" in line.workflow("approve", runs[0], "--comment", "fine")
    assert "succeeded" in line.workflow("status", runs[0], "--follow")
    assert "was rejected" in line.workflow("reject", runs[1], "ask")
    line.expect(6, "workflow", "status", runs[1], "--follow")
    assert "cancelled" in line.workflow("cancel", runs[2])
    for command in (["approve", runs[0]], ["reject", runs[0], "ask"], ["cancel", runs[2]], ["approve", runs[0], "go"]):
        line.expect(1, "workflow", *command)


def test_a_name_that_several_have_is_not_guessed(line: CommandLine) -> None:
    """The ids are said instead."""
    identities = {make(line, FAILS | {"name": "twins"}) for _ in range(2)}
    done = line.expect(1, "workflow", "delete", "twins")
    assert all(identity in done.stderr for identity in identities)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["start", "HELLO", "-i", "times=many"], 2, "not written in JSON"),
        (["start", "HELLO", "-i", "times"], 2, "NAME=VALUE"),
        (["start", "HELLO", "-i", "whom=x"], 1, "has no input"),
        (["start", "HELLO", "--inputs", "-"], 2, "has to be an object"),
        (["start", "workflow-000000000000000"], 1, "workflow-000000000000000"),
        (["status", "run-000000000000000"], 1, "run-000000000000000"),
        (["status", ""], 1, "No workflow of yours is called ''"),
        (["logs", "../../me"], 1, ""),
        (["runs", "--status", "odd"], 2, "odd"),
        (["list", "--limit", "0"], 2, "--limit"),
    ],
)
def test_what_cannot_be_done_is_one_message(line: CommandLine, arguments: list[str], code: int, said: str) -> None:
    """No traceback, nothing on stdout, an exit code that tells a mistake in the call from a refusal."""
    identity = make(line, HELLO.format(name="hello"))
    done = line.expect(
        code, "workflow", *[identity if each == "HELLO" else each for each in arguments], stdin="- a list\n"
    )
    assert said in done.stderr
    assert done.stdout == ""


@pytest.fixture
def unreachable() -> dict[str, str]:
    """Variables that lead to nobody."""
    return {"SANDGATE_URL": f"http://127.0.0.1:{free_port()}", "SANDGATE_API_KEY": "sgk_x"}


def test_a_server_that_is_not_there_has_an_exit_code_of_its_own(line: CommandLine, unreachable: dict[str, str]) -> None:
    """At once, and with its address."""
    done = line.expect(5, "workflow", "list", more=unreachable)
    assert unreachable["SANDGATE_URL"] in done.stderr
