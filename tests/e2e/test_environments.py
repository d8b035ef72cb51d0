"""Environments and executions over HTTP, on the real runtime: what a user is promised."""

import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, Server, create, delete, execute
from tests.abilities import ABILITIES
from tests.e2e.waiting import until

pytestmark = pytest.mark.needs_root_namespaces
MIB = 1024 * 1024
TEMPLATES = "/api/v1/sandbox/templates"
WORKFLOWS, RUNS = "/api/v1/orchestrator/workflows", "/api/v1/orchestrator/runs"
STAYS = (
    "import os, signal\nfor s in signal.valid_signals() - {9, 19}: signal.signal(s, signal.SIG_IGN)\n"
    "for _ in range(3):\n    if os.fork() == 0: os.setsid()\nos.write(1, b'on\\n')\nwhile True: pass"
)


def run(connection: Connection, environment_id: str, code: str, timeout: float = 30) -> dict[str, Any]:
    """The answer to an execute, however the code ended."""
    body = {"code": code, "timeout": timeout}
    answer: dict[str, Any] = connection.expect(200, "POST", f"{ENVIRONMENTS}/{environment_id}/execute", body)
    return answer


def test_a_lifetime_ends(server: Server) -> None:
    """Whatever its code does: the execution is ``lost``, the row says ``expired``, and nothing can be run any more."""
    with server.connect() as connection:
        for _attempt in range(5):
            made, ended = _run_until_its_end(connection)
            path = f"{ENVIRONMENTS}/{made['environment_id']}"
            row = connection.expect(200, "GET", path)
            while row["status"] == "running":
                row = connection.expect(200, "GET", path)
            assert row["status"] == "expired"
            late_s = (
                datetime.fromisoformat(row["ended_at"]) - datetime.fromisoformat(row["expires_at"])
            ).total_seconds()
            if set(ended.get("stdout", "").split()) == {"on"} and late_s <= 5:
                break
        # On a busy machine it may have been over before its code had said anything.
        assert (ended["status"], set(ended["stdout"].split())) == ("lost", {"on"})
        assert -0.1 <= late_s <= 5
        refused = connection.request("POST", f"{path}/execute", {"code": "1"})
        assert (refused.status, refused.json()["error"]["code"]) == (409, "ENVIRONMENT_NOT_RUNNING")
        listed = connection.expect(200, "GET", f"{ENVIRONMENTS}?status=expired&name=short")["environments"]
        assert made["environment_id"] in [each["environment_id"] for each in listed]


def _run_until_its_end(connection: Connection) -> tuple[dict[str, Any], dict[str, Any]]:
    """An environment with a short life, and the answer to code that outlasts it."""
    wanted = {"name": "short", "template": "python", "timeout": 3}
    made = connection.expect(201, "POST", ENVIRONMENTS, wanted)
    body = {"code": STAYS, "timeout": 60}
    answer = connection.request("POST", f"{ENVIRONMENTS}/{made['environment_id']}/execute", body)
    assert answer.status in (200, 409), answer
    return made, answer.json()


@pytest.mark.parametrize("change", [("PATCH", {"disabled": True}), ("DELETE", None)])
def test_what_somebody_left_running_ends_with_the_account(server: Server, change: tuple[str, Any]) -> None:
    """Environments and runs, within seconds; those of others go on."""
    name = f"leaver-{change[0].lower()}"
    secret = {"username": name, "password": "correct-horse-battery"}
    step = {"name": "s", "type": "code_execution", "config": {"code": "import time; time.sleep(60)"}}
    with server.connect() as admin:
        user_id = admin.expect(201, "POST", "/api/v1/users", {**secret, "role": "user"})["user_id"]
        token = admin.expect(200, "POST", "/api/v1/auth/token", secret)["access_token"]
        others = create(admin, "python")
        with Connection(server.port, token) as user:
            made = create(user, "python")
            workflow_id = user.expect(201, "POST", WORKFLOWS, {"name": "w", "steps": [step]})["workflow_id"]
            run_id = user.expect(200, "POST", f"{WORKFLOWS}/{workflow_id}/start")["run_id"]
            recipe = {"name": name, "base": "python-3.9", "setup": ["sleep 60"]}
            built = user.expect(201, "POST", TEMPLATES, recipe)
            tick = {"name": "s", "workflow_id": workflow_id, "interval": 3600}
            schedule = user.expect(201, "POST", "/api/v1/orchestrator/schedules", tick)["schedule_id"]
        admin.expect(200, change[0], f"/api/v1/users/{user_id}", change[1])
        path = f"{ENVIRONMENTS}/{made}"
        look_until(admin, path, "terminated")
        look_until(admin, f"{RUNS}/{run_id}", "cancelled")
        if change[0] == "PATCH":
            look_until(admin, f"{TEMPLATES}/{built['template_id']}", "failed")
        else:
            template = f"{TEMPLATES}/{built['template_id']}"
            until(lambda: admin.request("GET", template).status == 404, "its template is gone")
        left = admin.request("GET", f"/api/v1/orchestrator/schedules/{schedule}").status
        assert left == (404 if change[0] == "DELETE" else 200)
        assert run(admin, others, "print(1)")["stdout"] == "1\n"
        assert "account" in admin.expect(200, "GET", path)["status_reason"]
        delete(admin, others)


def look_until(connection: Connection, path: str, status: str) -> None:
    """Wait until it has this status."""
    deadline = time.monotonic() + 50
    while (seen := connection.expect(200, "GET", path))["status"] != status:
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)  # waits: the server looks every two seconds


def test_files_stay_in_their_environment(server: Server) -> None:
    """The next execution finds them in each folder that may be written; a neighbour never does."""
    folders = "import os\nplaces = ['.', os.path.expanduser('~'), '/tmp']\nprint(os.getcwd())\n"
    with server.connect() as connection:
        mine, neighbour = create(connection, "python"), create(connection, "python")
        write = folders + "for p in places: open(p + '/note', 'w').write('mine')"
        assert run(connection, mine, write)["stdout"] == "/workspace\n"
        read = folders + "print([os.path.exists(p + '/note') for p in places])"
        assert run(connection, mine, read)["stdout"] == "/workspace\n[True, True, True]\n"
        assert run(connection, neighbour, read)["stdout"] == "/workspace\n[False, False, False]\n"
        for each in (mine, neighbour):
            delete(connection, each)


def test_output_is_text_within_its_cap(server: Server) -> None:
    """What is no UTF-8 is replaced; beyond a MiB of a stream nothing is kept, and the answer says of which."""
    with server.connect() as connection:
        made = create(connection, "python")
        odd = run(connection, made, "import sys\nsys.stdout.buffer.write(b'a\\xff\\xc3')\nprint('b', file=sys.stderr)")
        assert (odd["stdout"], odd["stderr"]) == ("a\ufffd\ufffd", "b\n")
        assert not odd["stdout_truncated"]
        much = run(connection, made, f"import sys\nprint('x' * {3 * MIB})\nprint('last', file=sys.stderr)")
        assert (much["status"], len(much["stdout"])) == ("completed", MIB)
        assert (much["stdout_truncated"], much["stderr_truncated"], much["stderr"]) == (True, False, "last\n")
        delete(connection, made)


@pytest.mark.parametrize(
    ("code", "timeout", "statuses"),
    [
        ("x = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))", 60, {"out_of_memory"}),
        ("import os\nwhile True: os.fork()", 3, {"failed", "timed_out"}),
        ("while True: pass", 0.5, {"timed_out"}),
        ("import os\nx = b'x' * 65536\nfor _ in range(16384): os.write(1, x)", 60, {"output_limit"}),
        ("import os; os._exit(4)", 60, {"failed"}),
    ],
)
def test_going_too_far_ends_one_execution(server: Server, code: str, timeout: float, statuses: set[str]) -> None:
    """It is named in the answer and in the record; the environment goes on, and a neighbour notices nothing."""
    with server.connect() as connection, server.connect() as other:
        made, neighbour = create(connection, "python"), create(connection, "python")
        execute(connection, made)
        answers: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: answers.append(run(connection, made, code, timeout)))
        thread.start()
        while thread.is_alive():
            execute(other, neighbour)
            time.sleep(0.01)  # waits: the neighbour is there to be disturbed, not to load the machine
        thread.join()
        (ended,) = answers
        assert ended["status"] in statuses
        kept = connection.expect(200, "GET", f"{ENVIRONMENTS}/{made}/executions/{ended['execution_id']}")
        assert kept["status"] == ended["status"]
        assert execute(connection, made)["stdout"] == "Hello, World!\n"
        for each in (made, neighbour):
            delete(connection, each)


def test_side_by_side_and_cancelled(server: Server) -> None:
    """Two executions of one environment meet in its files; the one that would go on for ever is cancelled."""
    with server.connect() as connection, server.connect() as other:
        made = create(connection, "python")
        answers: list[dict[str, Any]] = []
        waits = "import time\nprint('waits', flush=True)\nopen('here', 'w').close()\nwhile True: time.sleep(1)"
        thread = threading.Thread(target=lambda: answers.append(run(other, made, waits, 60)))
        thread.start()
        run(connection, made, "import os, time\nwhile not os.path.exists('here'): time.sleep(0.005)")
        path = f"{ENVIRONMENTS}/{made}/executions"
        running: list[str] = []
        while not running:
            listed = connection.expect(200, "GET", path)["executions"]
            running = [each["execution_id"] for each in listed if each["status"] == "running"]
        cancelled = connection.expect(200, "POST", f"{path}/{running[0]}/cancel")
        thread.join()
        assert answers == [cancelled]
        assert (cancelled["status"], cancelled["stdout"], cancelled["exit_code"]) == ("cancelled", "waits\n", None)
        delete(connection, made)


@pytest.mark.parametrize("isolation", ["standard", pytest.param("gvisor", marks=pytest.mark.needs_gvisor)])
def test_code_of_each_language_finds_the_variables(server: Server, isolation: str) -> None:
    """And its owner's secrets, which are in no answer about the environment; programs that it starts find them, too."""
    secret = {"value": "a canary that nobody sings"}
    with server.connect() as connection:
        connection.expect(200, "PUT", "/api/v1/orchestrator/secrets/E2E_TOKEN", secret)
        given = {"env": {"MODE": "test", "TZ": "Asia/Tokyo"}, "secrets": ["E2E_TOKEN"]}
        wanted = {"name": "v", "template": "python", "isolation": isolation, **given}
        made = connection.expect(201, "POST", ENVIRONMENTS, wanted)
        assert {name: made[name] for name in given} == given
        path = f"{ENVIRONMENTS}/{made['environment_id']}/execute"
        shell = "print(os.popen('echo $MODE $E2E_TOKEN').read(), end='')"
        look = f"import os, time\nprint(os.environ['MODE'], os.environ['E2E_TOKEN'], time.strftime('%z'))\n{shell}"
        ran = connection.expect(200, "POST", path, {"code": look})
        assert ran["stdout"] == f"test {secret['value']} +0900\ntest {secret['value']}\n"
        ran = connection.expect(200, "POST", path, {"code": look, "env": {"MODE": "mine"}})
        assert ran["stdout"].startswith(f"mine {secret['value']}")
        ran = connection.expect(200, "POST", path, {"code": "echo $MODE $E2E_TOKEN", "language": "bash"})
        assert ran["stdout"] == f"test {secret['value']}\n"
        delete(connection, made["environment_id"])
        connection.expect(200, "DELETE", "/api/v1/orchestrator/secrets/E2E_TOKEN")


_PAUSING: dict[str, dict[str, Any]] = {
    "by not being used": {"idle_timeout": 1},
    "by their timeout": {"timeout": 1, "on_timeout": "pause"},
}


def _use(server: Server, environment_id: str, code: str) -> dict[str, Any]:
    """Run code to its end, though its environment may be paused in the midst of it, on a busy machine."""
    with server.connect() as connection, server.connect() as other, ThreadPoolExecutor(1) as beside:
        running = beside.submit(run, connection, environment_id, code)
        while not running.done():
            wait([running], timeout=2)
            if not running.done():
                other.request("POST", f"{ENVIRONMENTS}/{environment_id}/resume")
        return running.result()


@pytest.mark.parametrize("why", _PAUSING)
def test_they_stand_still_until_the_next_use(server: Server, why: str) -> None:
    """In each class, by setting, again and again; what was there is there."""
    classes = ["standard", *([] if ABILITIES["needs_gvisor"].find_lack() else ["gvisor"])]
    with server.connect() as connection:
        wanted = {"name": "still", "template": "python", **_PAUSING[why]}
        made = [connection.expect(201, "POST", ENVIRONMENTS, {**wanted, "isolation": each}) for each in classes]
        paths = [f"{ENVIRONMENTS}/{each['environment_id']}" for each in made]
        for each in made:
            _use(server, each["environment_id"], "open('kept', 'w').write('kept')")
        still = {"paused"}
        for _round in range(2):
            until(lambda: {connection.expect(200, "GET", path)["status"] for path in paths} == still, "all are paused")
            found = [_use(server, each["environment_id"], "print(open('kept').read())")["stdout"] for each in made]
            assert found == ["kept\n"] * len(classes)
        for each in made:
            delete(connection, each["environment_id"])


def test_the_gateway_has_room_for_descriptors_from_its_start(server: Server) -> None:
    """Its table does not grow under way, which would stop it for 10 to 20 ms each time."""
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in server.listeners()]
    (gateway,) = (status for status in statuses if status.startswith("Name:\tsg-gateway\n"))
    room = next(int(line.split()[1]) for line in gateway.splitlines() if line.startswith("FDSize:"))
    limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert room >= min(limit, 16_384)
