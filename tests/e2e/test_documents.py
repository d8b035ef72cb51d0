"""What the documents tell a user to type works, word for word, against a real server."""

import time
from pathlib import Path

import pytest

from bench.sandgate_server import Server
from tests.e2e.documents import Shell, commands

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39, pytest.mark.needs_curl]


def test_the_guide_to_the_api_can_be_followed(server: Server, tmp_path: Path) -> None:
    """Every command of docs/api.md succeeds, one after another, each with the values of the answers before it."""
    shell = Shell(f"http://127.0.0.1:{server.port}", tmp_path, {"ADMIN_PASSWORD": server.password})
    answers = [shell.run(command) for command in commands(ROOT / "docs/api.md")]
    executions = [answer for answer in answers if "stdout" in answer]
    assert [answer["status"] for answer in executions[:3]] == ["completed", "completed", "failed"]
    assert executions[1]["stdout"] == "['--fast'] test a line from a file\n"
    assert executions[0]["stdout"] == "Hello, World!\n"
    assert executions[2]["error"]["name"] == "ValueError"
    streams = [answer["events"] for answer in answers if "events" in answer]
    assert [text.count("event: started") for text in streams] == [1, 0]
    assert [text.count("event: finished") for text in streams] == [1, 1]
    assert answers[-1] == {"status": "revoked"}


def test_the_guide_to_workflows_can_be_followed(server: Server, tmp_path: Path) -> None:
    """Every command of docs/workflows.md succeeds; the run that failed is told to its end, found, and retried."""
    shell = Shell(f"http://127.0.0.1:{server.port}", tmp_path, {"TOKEN": server.token})
    answers = [shell.run(command) for command in commands(ROOT / "docs/workflows.md")]
    (started,) = [answer for answer in answers if answer.get("status") == "failed"]
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
