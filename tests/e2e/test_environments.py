"""Environments and executions over HTTP, on the real runtime: what a user is promised."""

import threading
import time
from datetime import datetime
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, Server, create, delete, execute

pytestmark = pytest.mark.needs_root_namespaces
MIB = 1024 * 1024
STAYS = (
    "import os, signal\nfor s in signal.valid_signals() - {9, 19}: signal.signal(s, signal.SIG_IGN)\n"
    "for _ in range(3):\n    if os.fork() == 0: os.setsid()\nos.write(1, b'on\\n')\nwhile True: pass"
)


def run(connection: Connection, environment_id: str, code: str, timeout: float = 30) -> dict[str, Any]:
    """The answer to an execute, however the code ended."""
    body = {"code": code, "timeout": timeout}
    answer: dict[str, Any] = connection.expect(200, "POST", f"{ENVIRONMENTS}/{environment_id}/execute", body)
    return answer


def test_a_lifetime_ends_within_a_second(server: Server) -> None:
    """Whatever its code does: the execution is ``lost``, the row says ``expired``, and nothing can be run any more."""
    with server.connect() as connection:
        wanted = {"name": "short", "template": "python", "timeout": 1}
        made = connection.expect(201, "POST", ENVIRONMENTS, wanted)
        path = f"{ENVIRONMENTS}/{made['environment_id']}"
        ended = run(connection, made["environment_id"], STAYS, 60)
        assert (ended["status"], set(ended["stdout"].split())) == ("lost", {"on"})
        row = connection.expect(200, "GET", path)
        while row["status"] == "running":
            row = connection.expect(200, "GET", path)
        assert row["status"] == "expired"
        late_s = datetime.fromisoformat(row["ended_at"]) - datetime.fromisoformat(row["expires_at"])
        assert -0.1 <= late_s.total_seconds() <= 1
        refused = connection.request("POST", f"{path}/execute", {"code": "1"})
        assert (refused.status, refused.json()["error"]["code"]) == (409, "ENVIRONMENT_NOT_RUNNING")
        listed = connection.expect(200, "GET", f"{ENVIRONMENTS}?status=expired&name=short")["environments"]
        assert made["environment_id"] in [each["environment_id"] for each in listed]


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
        waits = "open('here', 'w').close()\nimport time\nprint('waits', flush=True)\nwhile True: time.sleep(1)"
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
