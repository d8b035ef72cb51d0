"""Every example of examples/ is made and run as examples/README.md says, on the real runtime."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.sandgate_server import Server
from tests.e2e.commands import CommandLine
from tests.e2e.test_cli import log_in
from tests.e2e.waiting import until

pytestmark = [pytest.mark.needs_root_namespaces]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCHEDULES = "/api/v1/orchestrator/schedules"
PLACEHOLDER = re.compile("workflow-0{26}")
NOT_RUN = ("pending", "skipped")
PAGE = "Tokens, tokens, pointer: a pointer is a string of tokens."


@pytest.fixture(scope="module")
def line(server: Server, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A shell that is logged in as the admin."""
    shell = CommandLine(tmp_path_factory.mktemp("home"))
    log_in(shell, server)
    return shell


def create(line: CommandLine, name: str, workflow_id: str = "") -> str:
    """Make a workflow of an example, the id of another one filled in; its own id."""
    text = PLACEHOLDER.sub(workflow_id, (EXAMPLES / name).read_text()) if workflow_id else ""
    return line.workflow("create", "-" if text else str(EXAMPLES / name), stdin=text).split()[-1]


def run(line: CommandLine, workflow_id: str, *inputs: str, code: int = 0) -> dict[str, Any]:
    """Run it to its end; the run with its steps by their names."""
    given = [part for each in inputs for part in ("--input", each)]
    done = line.expect(code, "workflow", "start", workflow_id, *given, "--wait", "--json")
    view: dict[str, Any] = json.loads(done.stdout)
    return view | {"steps": {step["name"]: step for step in view["steps"]}}


def statuses(view: dict[str, Any]) -> dict[str, str]:
    """How each step has ended."""
    return {name: step["status"] for name, step in view["steps"].items()}


def test_every_file_is_an_example_that_is_told_of() -> None:
    """None is left out of the page or of these tests."""
    page, tests = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()
    names = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".json", ".yaml")]
    assert [name for name in names if f"({name})" not in page or f'"{name}"' not in tests] == []


def test_hello(line: CommandLine) -> None:
    """It greets whom it is told to greet."""
    workflow_id = create(line, "hello.json")
    assert run(line, workflow_id)["steps"]["greet"]["stdout"] == "Hello, World!\n"
    assert run(line, workflow_id, "who=Ann")["steps"]["greet"]["outputs"] == {"greeting": "Hello, Ann!"}


def test_fan_out(line: CommandLine) -> None:
    """Six cities, each looked at once, ranked by their mean."""
    workflow_id = create(line, "fan-out.yaml")
    steps = run(line, workflow_id)["steps"]
    found = {item["outputs"]["found"]["city"]: item["outputs"]["found"] for item in steps["look"]["items"]}
    assert len(found) == 6
    assert found["Lisbon"] == {"city": "Lisbon", "mean": 17.4, "spread": 4.1, "warmest": "aug"}
    assert steps["gather"]["outputs"] == {"warmest": "Singapore", "steadiest": "Singapore"}
    lines = run(line, workflow_id, "unit=F")["steps"]["gather"]["stdout"].splitlines()
    assert [row.split()[1] for row in lines] == ["Singapore", "Nairobi", "Lisbon", "Hobart", "Berlin", "Reykjavik"]
    assert " F " in lines[0]


def test_retry(line: CommandLine) -> None:
    """It works at the third attempt, or is given up after the fourth; what tidies up runs either way."""
    workflow_id = create(line, "retry.yaml")
    works = run(line, workflow_id)
    assert works["steps"]["flaky"]["attempts"] == 3
    assert statuses(works).pop("tell") in NOT_RUN
    assert statuses(works) | {"tell": ""} == {
        "flaky": "succeeded",
        "after": "succeeded",
        "tell": "",
        "tidy": "succeeded",
    }
    fails = run(line, workflow_id, "fails=9", code=6)
    assert fails["steps"]["flaky"]["attempts"] == 4
    assert statuses(fails) == {"flaky": "failed", "after": "skipped", "tell": "succeeded", "tidy": "succeeded"}
    assert "attempt 4 has failed" in fails["steps"]["tell"]["stdout"]


@pytest.mark.parametrize(("decision", "code"), [("approve", 0), ("reject", 6)])
def test_approval(line: CommandLine, decision: str, code: int) -> None:
    """It waits; what comes after the decision depends on it."""
    run_id = line.workflow("start", create(line, "approval.yaml"), "--input", "version=1.2.0")
    until(lambda: line.read("workflow", "status", run_id)["status"] == "waiting", "the run waits")
    line.workflow(decision, run_id, "--comment", "a word")
    done = line.expect(code, "workflow", "status", run_id, "--follow", "--json")
    ended = {step["name"]: step for step in json.loads(done.stdout)["steps"]}
    if decision == "approve":
        assert ended["publish"]["stdout"] == "1.2.0 was published, approved by admin\n"
        assert ended["withdraw"]["status"] in NOT_RUN
    else:
        assert (ended["publish"]["status"], ended["withdraw"]["status"]) == ("skipped", "succeeded")


def test_nightly_report(line: CommandLine) -> None:
    """The same day has the same report; the total is that of the branches."""
    workflow_id = create(line, "nightly-report.yaml")
    steps = run(line, workflow_id, "day=2026-01-31")["steps"]
    report = steps["report"]["stdout"].splitlines()
    assert report[0] == "Sales of 2026-01-31"
    assert (
        round(sum(float(row.split(" best:")[0].split()[-1]) for row in report[1:4]), 2)
        == steps["report"]["outputs"]["total"]
    )
    assert run(line, workflow_id, "day=2026-01-31")["steps"]["report"]["stdout"].splitlines() == report


def test_nightly_report_is_started_by_its_schedule(server: Server, line: CommandLine) -> None:
    """The schedule is due at half past two; the same one with an interval starts runs."""
    workflow_id = create(line, "nightly-report.yaml")
    wanted = json.loads((EXAMPLES / "nightly-report.schedule.json").read_text()) | {"workflow_id": workflow_id}
    with server.connect() as connection:
        made = connection.expect(201, "POST", SCHEDULES, wanted)
        assert made["next_run_at"].endswith(":30:00Z")
        often = {name: value for name, value in wanted.items() if name not in ("cron", "timezone")} | {"interval": 1}
        other = connection.expect(201, "POST", SCHEDULES, often)
        try:
            until(lambda: line.read("workflow", "runs", "-w", workflow_id)["runs"], "a tick starts a run")
        finally:
            for schedule in (made, other):
                connection.expect(200, "DELETE", f"{SCHEDULES}/{schedule['schedule_id']}")
    assert "succeeded" in line.workflow("status", workflow_id, "--follow")


class _Page(BaseHTTPRequestHandler):
    """A page of a few words."""

    def do_GET(self) -> None:
        body = PAGE.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def page() -> Iterator[str]:
    """The address of a page on this machine."""
    with HTTPServer(("127.0.0.1", 0), _Page) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}/"
        finally:
            listening.shutdown()
            thread.join()


def test_http_fetch(page: str, tmp_path: Path) -> None:
    """The words of a page are counted; a page of this machine only because the server allows it."""
    with Server({"SANDGATE_HTTP_STEP_ALLOW": "127.0.0.0/8"}) as allowing:
        line = CommandLine(tmp_path / "home")
        log_in(line, allowing)
        steps = run(line, create(line, "http-fetch.yaml"), f"url={page}", "most=2")["steps"]
    assert steps["fetch"]["outputs"]["status"] == 200
    assert steps["count"]["outputs"] == {"words": 6, "top": ["tokens", "pointer"]}


def test_nested(line: CommandLine) -> None:
    """A run of the inner workflow for each order; what they found is summed up."""
    inner = create(line, "nested-child.yaml")
    alone = run(line, inner, 'order={"customer": "Ada", "goods": {"pen": 2}}')
    assert alone["steps"]["price"]["outputs"] == {"total": 2.4}
    steps = run(line, create(line, "nested.yaml", inner))["steps"]
    assert [item["outputs"]["total"] for item in steps["each"]["items"]] == [21.0, 32.0, 14.7]
    assert steps["gather"]["outputs"] == {"total": 67.7}
    assert len(line.read("workflow", "runs", "-w", inner)["runs"]) == 4
