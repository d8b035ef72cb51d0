"""What the documents tell a user to type works, word for word, against a real server."""

import json
import os
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.sandgate_server import Server, create, execute
from sandgate.sandbox.interpreters import find_interpreters
from tests.e2e.documents import NEEDS_PACKAGES, SHOWN_ADDRESS, Shell, commands
from tests.e2e.small_registry import HOST as REGISTRY_HOST
from tests.e2e.small_registry import Registry, serve_registry
from tests.e2e.small_roots import small_root
from tests.e2e.small_wheels import HOST as INDEX_HOST
from tests.e2e.small_wheels import serve_index
from tests.e2e.test_templates import until_built
from tests.e2e.waiting import until

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39, pytest.mark.needs_curl]


def test_the_guide_to_the_api_can_be_followed(either: Server, tmp_path: Path) -> None:
    """Every command of docs/api.md succeeds, one after another, each with the values of the answers before it."""
    shell = Shell(f"http://127.0.0.1:{either.port}", tmp_path, {"ADMIN_PASSWORD": either.password})
    answers = [shell.run(command) for command in commands(ROOT / "docs/api.md") if not _lacks_node(shell, command)]
    executions = {answer["execution_id"]: answer for answer in answers if "stdout" in answer}
    shown = [(answer["status"], answer["stdout"]) for answer in executions.values()]
    assert shown[0] == ("completed", "Hello, World!\n")
    assert shown[1] == ("completed", "['--fast'] test a line from a file b'\\x00\\x01\\x02'\n")
    assert shown[2] == ("failed", "hello from bash\n")
    assert shown[3] in (("completed", "[ 'hello' ] 42\n"), ("failed", ""))
    assert {answer["error"]["name"] for answer in executions.values() if answer["error"]} == {
        "NonZeroExit", "ValueError",
    }  # fmt: skip
    assert shown[-1] == ("cancelled", "")
    streams = [answer["events"] for answer in answers if "events" in answer]
    assert [text.count("event: started") for text in streams] == [1, 1, 0, 1]
    assert [text.count("event: finished") for text in streams] == [1, 1, 1, 0]
    assert [answer["status"] for answer in answers if set(answer) == {"status"}] == [206, 200, 200, "revoked"]
    assert (tmp_path / "part.txt").read_text() == "1, 2"
    with zipfile.ZipFile(tmp_path / "data.zip") as archive:
        assert "rows.json" in [Path(name).name for name in archive.namelist()]
    assert [answer["links"] for answer in answers if "links" in answer] == [0, 1]
    found = [[match["line_number"] for match in answer["matches"]] for answer in answers if "matches" in answer]
    assert found == [[1], [1]]


def _lacks_node(shell: Shell, command: str) -> bool:
    """Whether a command needs another language than every machine has."""
    if '"language": "javascript"' not in command:
        return False
    asked = f'curl -s {SHOWN_ADDRESS}/api/v1/sandbox/templates/python-3.9 -H "Authorization: Bearer $TOKEN"'
    return "javascript" not in shell.run(asked)["languages"]


def test_the_guide_to_sessions_can_be_followed(either: Server, tmp_path: Path) -> None:
    """Every command of docs/sessions.md succeeds; what was shown is what the page says."""
    shell = Shell(f"http://127.0.0.1:{either.port}", tmp_path, {"TOKEN": either.token})
    # What needs packages of its own is shown in a notebook that has them.
    typed = [command for command in commands(ROOT / "docs/sessions.md") if not NEEDS_PACKAGES.search(command)]
    answers = [shell.run(command) for command in typed]
    first, second, noted, _cd, third = (answer for answer in answers if "stdout" in answer)
    assert noted["results"] == [{"text/plain": "'42\\n'"}]
    assert (third["stdout"], third["exit_code"], third["results"]) == ("hello from /tmp\n", 1, [])
    assert (first["results"], first["stdout"]) == ([], "")
    assert (second["results"], second["stdout"]) == ([{"text/plain": "12.57"}], "2\n")
    (events,) = [answer["events"] for answer in answers if "events" in answer]
    told = re.findall(r"event: (stdout|result)\ndata: (.*)\n", events)
    texts = [json.loads(data).get("text") or f"[{json.loads(data)['result']['text/plain']}]" for _name, data in told]
    assert "".join(texts) == "before\n[2]after\n"
    assert [answer["executions"] for answer in answers if "executions" in answer] == [0, 0, 2, 0, 0]
    assert answers[-1]["status"] == "ended"


def test_the_guide_to_snapshots_can_be_followed(either: Server, tmp_path: Path) -> None:
    """Every command of docs/snapshots.md succeeds; the second environment finds what the first has left, and so on."""
    shell = Shell(f"http://127.0.0.1:{either.port}", tmp_path, {"TOKEN": either.token})
    answers = [shell.run(command) for command in commands(ROOT / "docs/snapshots.md")]
    first, _wrote, kept, second, read, listed, got, deleted, forked = answers
    assert (kept["files"], kept["consistent"], kept["environment_id"]) == (1, True, first["environment_id"])
    assert (second["snapshot_id"], read["stdout"]) == (kept["snapshot_id"], "prepared\n")
    assert listed["snapshots"] == [got] == [kept]
    assert deleted["deleted"]
    copies = forked["environments"]
    assert [copy["forked_from"] for copy in copies] == [first["environment_id"]] * 2
    with either.connect() as connection:
        for row in (first, second, *copies):
            connection.expect(200, "DELETE", f"/api/v1/sandbox/environments/{row['environment_id']}")


@pytest.fixture
def building() -> Iterator[tuple[Server, Registry, bytes]]:
    """A server with an index and a registry of the test's own, and a root file system that the latter has."""
    root = small_root(find_interpreters(())["3.9"].prefix, "3.9")
    with serve_index() as index, serve_registry() as registry:
        index.add("tabulate", "0.9.0", {"tabulate.py": "WORD = 'table'\n"})
        registry.add("1.0", [root], {"config": {"Env": ["PATH=/usr/local/bin:/usr/bin", "OF_IMAGE=yes"]}})
        settings = {
            "SANDGATE_NETWORK_ALLOW_SPECIAL": f"{INDEX_HOST},{REGISTRY_HOST}",
            "SANDGATE_PACKAGE_INDEX": index.url,
            "SANDGATE_PACKAGE_HOSTS": "",
            "SANDGATE_INSECURE_REGISTRIES": registry.authority,
            "SANDGATE_SPARE_SANDBOXES": "0",
            "SANDGATE_GVISOR_SPARE_SANDBOXES": "0",
        }
        with Server(settings) as server:
            yield server, registry, root


def test_the_guide_to_templates_can_be_followed(building: tuple[Server, Registry, bytes], tmp_path: Path) -> None:
    """Every command of docs/templates.md succeeds; what was built is there, imported, and gone in the end."""
    server, registry, root = building
    (tmp_path / "root.tar").write_bytes(root)
    variables, instead = {"TOKEN": server.token}, {"registry.example.com": registry.authority}
    shell = Shell(f"http://127.0.0.1:{server.port}", tmp_path, variables, instead)
    answers = [shell.run(command) for command in commands(ROOT / "docs/templates.md")]
    followed = [answer["events"] for answer in answers if "events" in answer]
    assert [events.rstrip().rpartition("\n\n")[2].split("\n")[1] for events in followed] == ["event: finished"] * 4
    (ran,) = [answer for answer in answers if "stdout" in answer]
    assert ran["stdout"] == "True hello in haste\n"
    assert answers[0]["status"] == "building"
    shown = [answer for answer in answers if "lock" in answer]
    assert [answer["status"] for answer in shown if answer["name"] == "greeting"][1:] == ["ready"]
    assert [answer["awaits_upload"] for answer in shown if answer["name"] == "own-root"] == [True, False]
    (tables,) = [answer for answer in shown if answer["name"] == "tables" and answer["status"] == "ready"]
    assert "tabulate==0.9.0" in tables["lock"]
    assert answers[-1] == {"name": "greeting", "versions": [1], "status": "deleted"}
    with server.connect() as connection:
        own = connection.expect(200, "GET", "/api/v1/sandbox/templates/python-3.9")
        assert tables["languages"] == [*own["languages"], "lines"]
        for name, languages in (("own-root", ["python", "bash"]), ("from-image", ["python", "bash"])):
            built = until_built(connection, name)
            assert (built["status"], built["languages"]) == ("ready", languages)
        environment_id = create(connection, "tables")
        lines = {"code": "one\ntwo\n", "language": "lines"}
        assert execute(connection, environment_id, lines)["stdout"] == "2\n"
        imported = {"code": "import tabulate\nprint(tabulate.WORD)"}
        assert execute(connection, environment_id, imported)["stdout"] == "table\n"
        environment_id = create(connection, "from-image")
        code = {"code": "import os\nprint(os.environ['OF_IMAGE'])"}
        assert execute(connection, environment_id, code)["stdout"] == "yes\n"


def test_the_guide_to_the_network_can_be_followed(either: Server, tmp_path: Path) -> None:
    """Every command of docs/network.md succeeds; what may be reached is what was said last."""
    shell = Shell(f"http://127.0.0.1:{either.port}", tmp_path, {"TOKEN": either.token})
    answers = [shell.run(each) for each in commands(ROOT / "docs/network.md")]
    made, without, changed, told, _begun, answer, link, named = answers
    assert answer == named == {"hello": "port"}
    assert without["network"] is None
    with either.connect() as connection:
        assert connection.expect(200, "GET", f"{link['link_path']}hello.json") == answer
    assert made["network"] == {"allow": ["packages.example.com", "*.example.org:443"]}
    assert changed["network"] == told["network"] == {"allow": ["packages.example.com"]}
    with either.connect() as connection:
        connection.expect(200, "DELETE", f"/api/v1/sandbox/environments/{made['environment_id']}")


def test_the_guide_to_workflows_can_be_followed(server: Server, tmp_path: Path) -> None:
    """Every command of docs/workflows.md succeeds; the run that failed is told to its end, found, and retried."""
    shell = Shell(f"http://127.0.0.1:{server.port}", tmp_path, {"TOKEN": server.token})
    answers = [shell.run(command) for command in commands(ROOT / "docs/workflows.md")]
    started, step = (answer for answer in answers if answer.get("status") == "failed")
    assert (step["step"], step["item"], step["stdout"]) == ("try", None, "1\n")
    (events,) = [answer["events"] for answer in answers if isinstance(answer.get("events"), str)]
    assert 'event: stdout\ndata: {"step":"try","item":null,"attempt":1,"text":"1\\n"}' in events
    assert events.rstrip().rpartition("\n\n")[2].split("\n")[1] == "event: end"
    (listed,) = [answer["runs"] for answer in answers if "runs" in answer]
    assert [run["run_id"] for run in listed] == [started["run_id"]]
    with server.connect() as connection:
        path = f"/api/v1/orchestrator/workflows/{started['workflow_id']}/status"
        shown = connection.expect(200, "GET", path)
        deadline = time.monotonic() + 60
        while shown["status"] in ("running", "waiting") and time.monotonic() < deadline:
            shown = connection.expect(200, "GET", path)
    assert (shown["run_id"], shown["status"]) == (started["run_id"], "succeeded")
    assert [step["attempts"] for step in shown["steps"]] == [1, 2]


def test_the_guide_to_processes_can_be_followed(either: Server, tmp_path: Path) -> None:
    """Every command of docs/processes.md succeeds; what was typed comes back, and the terminal is killed at the end."""
    with either.connect() as connection:
        environment_id = create(connection)
    variables = {"TOKEN": either.token, "ENVIRONMENT_ID": environment_id}
    shell = Shell(f"http://127.0.0.1:{either.port}", tmp_path, variables)
    answers = []
    for command in commands(ROOT / "docs/processes.md"):
        # A reader types later than a test.
        for part, text in (("/output ", "ready\n"), ("/signal ", "$ ")):
            if part in command:
                path = f"/api/v1/sandbox/environments/{environment_id}/processes/{shell.variables['PROCESS_ID']}"
                _until_said(either, f"{path}/output", text)
        answers.append(shell.run(command))
    kept, further = (answer for answer in answers if "position" in answer)
    (events,) = [answer["events"] for answer in answers if "events" in answer]
    assert (answers[0]["status"], kept["stdout"].splitlines()[0]) == ("running", "ready")
    # The answer to what was typed may come between the two looks.
    assert kept["stdout"] + further["stdout"] in ("ready\n", "ready\ngot hello\n")
    assert further["skipped"] == {"stdout": 0, "stderr": 0}
    assert "got hello" in events
    assert "event: finished" in events
    assert [answer["status"] for answer in answers if answer.get("ended_at")] == ["exited", "killed"]
    assert answers[-1]["url"].endswith(answers[-1]["ticket"])


def _until_said(server: Server, path: str, text: str) -> None:
    with server.connect() as connection:
        until(lambda: text in connection.expect(200, "GET", path)["stdout"], f"it says {text!r}")


@pytest.mark.needs_gvisor
def test_what_operations_tell_of_the_gvisor_class(server: Server, tmp_path: Path) -> None:
    """An environment that asks for it is of this class, on another kernel than that of the machine."""
    shell = Shell(f"http://127.0.0.1:{server.port}", tmp_path, {"TOKEN": server.token})
    made, ran = (shell.run(command) for command in commands(ROOT / "docs/operations.md"))
    assert made["isolation"] == ran["isolation"] == "gvisor"
    assert ran["stdout"].strip() not in ("", os.uname().release)
    with server.connect() as connection:
        connection.expect(200, "DELETE", f"/api/v1/sandbox/environments/{made['environment_id']}")


def test_the_commands_of_the_readme_can_be_typed(server: Server, tmp_path: Path) -> None:
    """The first steps lead from the password's file to the output of code."""
    (tmp_path / ".state").mkdir()
    (tmp_path / ".state" / "initial-admin-password").write_text(server.password)
    shell = Shell(f"http://127.0.0.1:{server.port}", tmp_path)
    answers = [shell.run(command) for command in commands(ROOT / "README.md")]
    assert answers[-1]["stdout"] == "42\n"


def test_the_guide_to_schedules_and_webhooks_can_be_followed(server: Server, tmp_path: Path) -> None:
    """Every command of docs/triggers.md succeeds, the signed request among them."""
    with server.connect() as connection:
        asked = {"username": "admin", "password": server.password}
        token = connection.expect(200, "POST", "/api/v1/auth/token", asked)["access_token"]
    shell = Shell(f"http://127.0.0.1:{server.port}", tmp_path, {"TOKEN": token})
    answers = [shell.run(command) for command in commands(ROOT / "docs/triggers.md")]
    assert [answer["status"] for answer in answers if "run_id" in answer and "workflow_id" not in answer] == [
        "accepted",
        "accepted",
    ]
    assert [len(answer["upcoming"]) for answer in answers if set(answer) == {"schedule_id", "upcoming"}] == [20]
    assert [row["status"] for answer in answers for row in answer.get("deliveries", ())] == ["accepted", "accepted"]
    assert answers[-1]["status"] == "deleted"
