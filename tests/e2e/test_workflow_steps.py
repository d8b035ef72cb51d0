"""Every kind of step, and what runs share, against a real server."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, Server
from tests.e2e.event_client import EventClient, texts
from tests.e2e.test_workflows import RESISTS, RUNS, WORKFLOWS, code, start

pytestmark = [pytest.mark.needs_root_namespaces]
ASK: dict[str, Any] = {"name": "ask", "type": "approval"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server whose steps may reach one address of this machine, and no other."""
    with Server({"SANDGATE_HTTP_STEP_ALLOW": "127.0.0.1"}) as running:
        yield running


def make(connection: Connection, *steps: dict[str, Any], **more: Any) -> str:
    """A workflow."""
    return str(connection.expect(201, "POST", WORKFLOWS, {"name": "w", "steps": steps, **more})["workflow_id"])


def begin(connection: Connection, workflow_id: str, wait: float = 0, **inputs: Any) -> dict[str, Any]:
    """A run of it."""
    path = f"{WORKFLOWS}/{workflow_id}/start?wait={wait}"
    run: dict[str, Any] = connection.expect(200, "POST", path, {"inputs": inputs})
    return run


def look(connection: Connection, run: dict[str, Any]) -> dict[str, Any]:
    """How far it is."""
    seen: dict[str, Any] = connection.expect(200, "GET", f"{RUNS}/{run['run_id']}")
    return seen


def until(connection: Connection, run: dict[str, Any], *statuses: str) -> dict[str, Any]:
    """The run, once it has one of these statuses."""
    deadline = time.monotonic() + 60
    while (seen := look(connection, run))["status"] not in statuses:
        assert time.monotonic() < deadline, seen
    return seen


def step_of(run: dict[str, Any], name: str) -> dict[str, Any]:
    """One of its steps."""
    found: dict[str, Any] = next(step for step in run["steps"] if step["name"] == name)
    return found


def child(name: str, workflow_id: str, **more: Any) -> dict[str, Any]:
    """A step that starts a workflow."""
    config = {"workflow_id": workflow_id, "inputs": more.pop("inputs", {})}
    return {"name": name, "type": "workflow", "config": config, **more}


def test_runs_below_are_given_inputs_and_give_outputs(server: Server) -> None:
    """One for each item, all found from above and from below."""
    with server.connect() as connection:
        below = make(
            connection,
            code("add", "outputs['n'] = inputs['x'] + 1", config={"inputs": {"x": "${{ inputs.x }}"}}),
            inputs={"x": {"type": "integer", "required": True}},
            outputs={"n": "${{ steps.add.outputs.n }}"},
        )
        items = child("each", below, inputs={"x": "${{ item }}"}, foreach=[1, 2, 3])
        run = start(connection, items, outputs={"all": "${{ steps.each.outputs.n }}"})
        assert (run["status"], run["outputs"]) == ("succeeded", {"all": [2, 3, 4]})
        for item in step_of(run, "each")["items"]:
            found = look(connection, {"run_id": item["child_run_id"]})
            assert (found["parent_run_id"], found["parent_step"]) == (run["run_id"], "each")
            assert found["outputs"] == item["outputs"]


def test_a_cancel_reaches_code_two_runs_below(server: Server) -> None:
    """It is dead when the answer comes, though it does not listen."""
    with server.connect() as connection:
        lowest = make(connection, code("stubborn", RESISTS))
        run = begin(connection, make(connection, child("mid", make(connection, child("low", lowest)))))
        until(connection, run, "waiting")
        deadline = time.monotonic() + 60
        while not connection.expect(200, "GET", f"{RUNS}?workflow_id={lowest}&status=running")["runs"]:
            assert time.monotonic() < deadline
        cancelled = connection.expect(200, "POST", f"{RUNS}/{run['run_id']}/cancel")
        (below,) = connection.expect(200, "GET", f"{RUNS}?workflow_id={lowest}")["runs"]
    assert (cancelled["status"], below["status"]) == ("cancelled", "cancelled")


def test_runs_of_a_group_take_turns(server: Server) -> None:
    """In their order; one that waits is cancelled at once."""
    with server.connect() as connection:
        workflow_id = make(connection, ASK, concurrency={"group": "g"})
        first, second, third = [begin(connection, workflow_id) for _ in range(3)]
        until(connection, first, "waiting")
        assert [look(connection, run)["status"] for run in (second, third)] == ["pending", "pending"]
        assert connection.expect(200, "POST", f"{RUNS}/{second['run_id']}/cancel")["status"] == "cancelled"
        connection.expect(200, "POST", f"{RUNS}/{first['run_id']}/steps/ask/approve", {})
        assert until(connection, third, "waiting")["concurrency_group"] == "g"


# Fails the first time; a file outside the sandbox cannot be had, so the number of the attempt says which it is.
KEYED = """
import os
outputs["key"] = os.environ["SANDGATE_STEP_KEY"]
outputs["attempt"] = int(os.environ["SANDGATE_ATTEMPT"])
print(outputs["key"], flush=True)
if outputs["attempt"] == 1:
    raise SystemExit(1)
"""


def test_the_key_of_a_step_stays_over_attempts_and_differs_by_item(server: Server) -> None:
    """It is what others are given to know a repeated effect by."""
    with server.connect() as connection:
        once = {"max_attempts": 2, "delay": 0}
        run = start(connection, code("one", KEYED, retry=once), code("each", KEYED, retry=once, foreach=[7, 8]))
        assert run["status"] == "succeeded", run
        one, each = step_of(run, "one"), step_of(run, "each")
        assert one["outputs"] == {"key": f"{run['run_id']}.one", "attempt": 2}
        assert [item["outputs"]["key"] for item in each["items"]] == [f"{run['run_id']}.each.{n}" for n in (0, 1)]
        assert [item["outputs"]["attempt"] for item in each["items"]] == [2, 2]


def test_a_workflow_in_use_is_deleted_by_force_alone(server: Server) -> None:
    """Without it nothing changes; with it, the run is cancelled and its code dead."""
    with server.connect() as connection:
        workflow_id = make(connection, code("stubborn", RESISTS))
        run = until(connection, begin(connection, workflow_id), "running")
        refused = connection.expect(409, "DELETE", f"{WORKFLOWS}/{workflow_id}")
        assert "force=true" in json.dumps(refused)
        assert look(connection, run)["status"] == "running"
        connection.expect(200, "DELETE", f"{WORKFLOWS}/{workflow_id}?force=true")
        connection.expect(404, "GET", f"{WORKFLOWS}/{workflow_id}")
        assert step_of(until(connection, run, "cancelled"), "stubborn")["status"] == "cancelled"


def test_files_stay_in_a_workspace(server: Server) -> None:
    """From step to step and between steps side by side, and not from run to run."""
    waits = "import os, time\nwhile not os.path.exists('two'): time.sleep(0.01)\nopen('one', 'w').close()"
    steps = [
        code("write", "assert not __import__('os').listdir('.')\nopen('f', 'w').write('kept')"),
        code("wait", waits, "write"),
        code("go", "open('two', 'w').close()", "write"),
        code("read", "import os\nprint(open('f').read(), sorted(os.listdir('.')))", "wait", "go"),
    ]
    with server.connect() as connection:
        workflow_id = make(connection, *steps, workspace="run")
        for _ in range(2):
            run = look(connection, begin(connection, workflow_id, wait=55))
            assert run["status"] == "succeeded", run
            assert step_of(run, "read")["stdout"] == "kept ['f', 'one', 'two']\n"


def test_a_step_runs_in_a_named_environment(server: Server) -> None:
    """It finds its files, and the environment outlives a cancel of the run."""
    with server.connect() as connection:
        made = connection.expect(201, "POST", ENVIRONMENTS, {"name": "e", "template": "python"})
        path = f"{ENVIRONMENTS}/{made['environment_id']}"
        connection.expect(200, "POST", f"{path}/execute", {"code": "open('f', 'w').write('kept')"})
        named = {"environment_id": made["environment_id"]}
        run = start(connection, code("read", "outputs['f'] = open('f').read()", config=named))
        assert run["steps"][0]["outputs"] == {"f": "kept"}
        slow = begin(connection, make(connection, code("slow", RESISTS, config=named)))
        until(connection, slow, "running")
        assert connection.expect(200, "POST", f"{RUNS}/{slow['run_id']}/cancel")["status"] == "cancelled"
        assert connection.expect(200, "POST", f"{path}/execute", {"code": "print(1)"})["stdout"] == "1\n"
        connection.expect(200, "DELETE", path)
        gone = start(connection, code("late", "pass", config=named))
    assert (gone["status"], gone["steps"][0]["attempts"]) == ("failed", 1)
    assert made["environment_id"] in gone["steps"][0]["error"]["value"]


@pytest.mark.parametrize("how", ["environment", "execution"])
def test_a_step_that_is_ended_by_its_environment_has_failed(server: Server, how: str) -> None:
    """And so has its run: what needs it is skipped, what is for failures runs."""
    with server.connect() as connection:
        made = connection.expect(201, "POST", ENVIRONMENTS, {"name": "e", "template": "python"})
        path = f"{ENVIRONMENTS}/{made['environment_id']}"
        steps = [code("a", RESISTS, config={"environment_id": made["environment_id"]}), code("b", "pass", "a")]
        run = begin(connection, make(connection, *steps, on_error=[code("tell", "pass")]))
        until(connection, run, "running")
        deadline = time.monotonic() + 60
        while not (going := connection.expect(200, "GET", f"{path}/executions")["executions"]):
            assert time.monotonic() < deadline
        if how == "execution":
            connection.expect(200, "POST", f"{path}/executions/{going[0]['execution_id']}/cancel")
            run = until(connection, run, "failed", "succeeded", "cancelled")
        connection.expect(200, "DELETE", path)
        run = until(connection, run, "failed", "succeeded", "cancelled")
    assert [run["status"], *(step["status"] for step in run["steps"])] == ["failed", "failed", "skipped", "succeeded"]
    assert "Cancelled" in run["error"]["value"]


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was sent, and keeps it in ``sent``."""

    sent: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        """One request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.sent.append(f"{self.path}\n{self.headers}\n{body.decode()}")
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def echoing() -> Iterator[int]:
    """The port of a server that answers with what it is sent."""
    web = HTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    try:
        yield web.server_port
    finally:
        web.shutdown()
        thread.join()
        web.server_close()


def test_requests_are_made_from_outside_the_sandboxes(server: Server) -> None:
    """To where they may go; what they bring is handed on."""
    with echoing() as port:
        config = {"method": "POST", "url": f"http://127.0.0.1:{port}/", "body": {"n": "${{ inputs.n }}"}}
        seen = code(
            "seen", "print(inputs['n'] * 2)", "ask", config={"inputs": {"n": "${{ steps.ask.outputs.body.n }}"}}
        )
        steps = [{"name": "ask", "type": "http", "config": config}, seen]
        with server.connect() as connection:
            workflow_id = make(connection, *steps, inputs={"n": {"type": "integer"}})
            run = look(connection, begin(connection, workflow_id, wait=55, n=21))
            inside = [f"http://{host}:{server.port}/healthz" for host in ("127.0.0.2", "[::1]", "0.0.0.0", "localtest")]
            refused = [
                start(connection, {"name": "a", "type": "http", "config": {"url": url}})["steps"][0] for url in inside
            ]
    assert step_of(run, "seen")["stdout"] == "42\n"
    assert [step["error"]["name"] for step in refused[:3]] == ["AddressRefused"] * 3
    assert refused[3]["error"]["name"] in ("NameUnknown", "AddressRefused")


def test_steps_sleep_until_a_moment_and_ask_item_by_item(server: Server) -> None:
    """The body of a word says which item is meant."""
    moment = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
    nap = {"name": "nap", "type": "sleep", "needs": [], "config": {"until": "${{ inputs.at }}"}}
    with server.connect() as connection:
        workflow_id = make(connection, {**ASK, "foreach": ["x", "y"]}, nap, inputs={"at": {"type": "string"}})
        run = begin(connection, workflow_id, at=moment)
        until(connection, run, "waiting")
        path = f"{RUNS}/{run['run_id']}/steps/ask/approve"
        assert connection.request("POST", path, {}).status == 409
        for item in (1, 0):
            connection.expect(200, "POST", path, {"item": item})
        run = until(connection, run, "succeeded")
    assert step_of(run, "nap")["finished_at"] >= moment[:19]
    assert [item["outputs"]["by"] for item in step_of(run, "ask")["items"]] == ["admin", "admin"]


SECRET = "canary-é/secret-73914"


@pytest.fixture
def secret(server: Server) -> None:
    """Secrets of whoever starts the runs."""
    with server.connect() as connection:
        for name, value in (("CANARY", SECRET), ("HOOK", "http://canary.example:81/abc")):
            connection.expect(200, "PUT", f"/api/v1/orchestrator/secrets/{name}", {"value": value})


def shown_of(connection: Connection, run: dict[str, Any]) -> str:
    """Everything that the API tells of a run."""
    history = connection.expect(200, "GET", f"{RUNS}/{run['run_id']}/history")
    return json.dumps([look(connection, run), history], ensure_ascii=False)


@pytest.mark.usefixtures("secret")
def test_requests_carry_secrets_that_nothing_shows(server: Server) -> None:
    """In the address, in headers by a variable, and in the body; answers and errors have them masked."""
    with echoing() as port, server.connect() as connection:
        config = {
            "method": "POST",
            "url": f"http://127.0.0.1:{port}/a?key=${{{{ secrets.CANARY }}}}",
            "headers": {"X-Key": "${{ split(env.KEY, 'é')[0] }}${{ split(env.KEY, 'é')[1] }}"},
            "body": {"k": ["${{ secrets.CANARY }}"]},
        }
        steps = [
            {"name": "good", "type": "http", "config": config},
            {"name": "refused", "type": "http", "config": {**config, "expect": [404]}},
            {"name": "nowhere", "type": "http", "config": {"url": "http://${{ secrets.CANARY }}.example/"}},
            {"name": "hook", "type": "http", "config": {"url": "${{ secrets.HOOK }}"}},
            {"name": "wrong", "type": "http", "config": {**config, "body": "${{ inputs[secrets.CANARY] }}"}},
        ]
        run = start(connection, *({**step, "needs": []} for step in steps), env={"KEY": "${{ secrets.CANARY }}"})
        shown = shown_of(connection, run)
    assert [step["status"] for step in run["steps"]] == ["succeeded"] + ["failed"] * 4
    assert step_of(run, "good")["outputs"]["body"] == {"k": ["***"]}
    assert "canary" not in shown
    assert step_of(run, "hook")["error"]["value"] == "The name *** has no address"
    sent = [text for text in Echo.sent if "/a?key=" in text]
    assert len(sent) == 2
    for text in sent:
        assert "/a?key=canary-%C3%A9/secret-73914" in text
        assert "canary-/secret-73914" in text
        assert json.loads(text.split("\n")[-1]) == {"k": [SECRET]}


LEAVES = """
import os
print("got", os.environ["KEY"])
open(os.environ["SANDGATE_ARTIFACTS"] + "/left", "w").write("left by " + os.environ["SANDGATE_STEP"])
"""


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize("place", ["own", "shared", "named"])
def test_wherever_code_runs_it_is_masked_and_its_files_are_kept(server: Server, place: str) -> None:
    """Also live, and in the record that a named environment keeps of it; the place goes on to be of use."""
    with server.connect() as connection:
        made = connection.expect(201, "POST", ENVIRONMENTS, {"name": "e", "template": "python"})
        path = f"{ENVIRONMENTS}/{made['environment_id']}"
        config = {"environment_id": made["environment_id"]} if place == "named" else {}
        more = {"workspace": "run"} if place == "shared" else {}
        given = {"env": {"KEY": "${{ secrets.CANARY }}"}, "config": config}
        late = code("late", LEAVES + "import time\ntime.sleep(60)", "two", **{**given, "timeout": 4})
        workflow_id = make(connection, code("one", LEAVES, **given), code("two", LEAVES, "one", **given), late, **more)
        run = begin(connection, workflow_id)
        with EventClient(server.port, server.token, f"{RUNS}/{run['run_id']}/events") as client:
            told = texts(client.all())
        run = look(connection, run)
        assert [step["status"] for step in run["steps"]] == ["succeeded", "succeeded", "timed_out"], run
        for step in run["steps"]:
            assert step["stdout"] == told[step["name"], None, 1, "stdout"] == "got ***\n"
        found = connection.expect(200, "GET", f"{RUNS}/{run['run_id']}/artifacts")["artifacts"]
        assert sorted((row["step"], row["path"], row["size_bytes"]) for row in found) == [
            ("late", "left", 12), ("one", "left", 11), ("two", "left", 11),
        ]  # fmt: skip
        executions = connection.expect(200, "GET", f"{path}/executions")["executions"]
        assert [row["stdout"] for row in executions] == (["got ***\n"] * 3 if place == "named" else [])
        assert "canary" not in json.dumps([shown_of(connection, run), executions])
        connection.expect(200, "DELETE", path)
