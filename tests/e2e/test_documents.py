"""What the documents tell a user to type works, word for word, against a real server."""

import json
import re
import time
from pathlib import Path

import pytest

from bench.sandgate_server import Server, create
from sandgate.sandbox.interpreters import find_interpreters
from tests.e2e.documents import Shell, commands
from tests.e2e.small_roots import small_root
from tests.e2e.test_templates import until_built
from tests.e2e.waiting import until

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39, pytest.mark.needs_curl]


def test_the_guide_to_the_api_can_be_followed(either: Server, tmp_path: Path) -> None:
    """Every command of docs/api.md succeeds, one after another, each with the values of the answers before it."""
    shell = Shell(f"http://127.0.0.1:{either.port}", tmp_path, {"ADMIN_PASSWORD": either.password})
    answers = [shell.run(command) for command in commands(ROOT / "docs/api.md")]
    executions = [answer for answer in answers if "stdout" in answer]
    assert [answer["status"] for answer in executions[:4]] == ["completed", "completed", "failed", "failed"]
    assert executions[1]["stdout"] == "['--fast'] test a line from a file\n"
    assert executions[0]["stdout"] == "Hello, World!\n"
    assert (executions[2]["stdout"], executions[2]["exit_code"]) == ("hello from bash\n", 3)
    assert executions[3]["error"]["name"] == "ValueError"
    streams = [answer["events"] for answer in answers if "events" in answer]
    assert [text.count("event: started") for text in streams] == [1, 0, 1]
    assert [text.count("event: finished") for text in streams] == [1, 1, 0]
    assert answers[-1] == {"status": "revoked"}


def test_the_guide_to_sessions_can_be_followed(either: Server, tmp_path: Path) -> None:
    """Every command of docs/sessions.md succeeds; what was shown is what the page says."""
    shell = Shell(f"http://127.0.0.1:{either.port}", tmp_path, {"TOKEN": either.token})
    answers = [shell.run(command) for command in commands(ROOT / "docs/sessions.md")]
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


def test_the_guide_to_templates_can_be_followed(server: Server, tmp_path: Path) -> None:
    """Every command of docs/templates.md succeeds; what was built is there, imported, and gone in the end."""
    (tmp_path / "root.tar").write_bytes(small_root(find_interpreters(())["3.9"].prefix, "3.9"))
    shell = Shell(f"http://127.0.0.1:{server.port}", tmp_path, {"TOKEN": server.token})
    answers = [shell.run(command) for command in commands(ROOT / "docs/templates.md")]
    (events,) = [answer["events"] for answer in answers if "events" in answer]
    assert events.rstrip().rpartition("\n\n")[2].split("\n")[1] == "event: finished"
    (ran,) = [answer for answer in answers if "stdout" in answer]
    assert ran["stdout"] == "True hello in haste\n"
    assert answers[0]["status"] == "building"
    shown = [answer for answer in answers if "lock" in answer]
    assert [answer["status"] for answer in shown if answer["name"] == "greeting"][1:] == ["ready"]
    assert [answer["awaits_upload"] for answer in shown if answer["name"] == "own-root"] == [True, False]
    assert answers[-1] == {"name": "greeting", "versions": [1], "status": "deleted"}
    with server.connect() as connection:
        built = until_built(connection, "own-root")
        assert (built["status"], built["languages"]) == ("ready", ["python", "bash"])
        connection.expect(200, "DELETE", "/api/v1/sandbox/templates/own-root")


def test_the_guide_to_the_network_can_be_followed(either: Server, tmp_path: Path) -> None:
    """Every command of docs/network.md succeeds; what may be reached is what was said last."""
    shell = Shell(f"http://127.0.0.1:{either.port}", tmp_path, {"TOKEN": either.token})
    made, changed, told, _begun, answer, link = (shell.run(each) for each in commands(ROOT / "docs/network.md"))
    assert answer == {"hello": "port"}
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
        deadline = time.monotonic() + 20
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
    (kept,) = [answer for answer in answers if "position" in answer]
    (events,) = [answer["events"] for answer in answers if "events" in answer]
    assert (answers[0]["status"], kept["stdout"].splitlines()[0]) == ("running", "ready")
    assert "got hello" in events
    assert "event: finished" in events
    assert [answer["status"] for answer in answers if answer.get("ended_at")] == ["exited", "killed"]
    assert answers[-1]["url"].endswith(answers[-1]["ticket"])


def _until_said(server: Server, path: str, text: str) -> None:
    with server.connect() as connection:
        until(lambda: text in connection.expect(200, "GET", path)["stdout"], f"it says {text!r}")


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
