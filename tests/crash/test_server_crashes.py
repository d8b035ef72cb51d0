"""Processes of a running server are killed at the worst moments; nothing is lost that was acknowledged."""

import os
import subprocess
from pathlib import Path

import pytest

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, create, execute
from bench.sandgate_server import command as sandgate_command
from tests.crash.server_process import GATEWAY, LAUNCHER, BackgroundExecution, CrashServer, until

pytestmark = pytest.mark.needs_root_namespaces
LOOP = "print('begun', flush=True)\nwhile True: pass"


def status_of(connection: Connection, environment_id: str) -> str:
    """The status of an environment, as a user sees it."""
    return str(connection.expect(200, "GET", f"{ENVIRONMENTS}/{environment_id}")["status"])


def make(server: CrashServer) -> str:
    """An environment that has run something and holds a file."""
    with server.connect() as connection:
        environment_id = create(connection, "python")
        execute(connection, environment_id, {"code": "open('kept', 'w').write('still here')"})
    return environment_id


def executions(connection: Connection, environment_id: str) -> list[dict[str, object]]:
    """All executions of an environment, newest first."""
    answer = connection.expect(200, "GET", f"{ENVIRONMENTS}/{environment_id}/executions")
    return list(answer["executions"])


def running_is_recorded(server: CrashServer, environment_id: str) -> bool:
    """Whether an execution of the environment is listed as running."""
    with server.connect() as connection:
        return any(row["status"] == "running" for row in executions(connection, environment_id))


def assert_adopted(server: CrashServer, environment_id: str) -> None:
    """The environment lives with its files, and what ran in it is recorded as lost."""
    with server.until_ready() as connection:
        assert status_of(connection, environment_id) == "running"
        answer = execute(connection, environment_id, {"code": "print(open('kept').read())"})
        assert answer["stdout"] == "still here\n"
        assert "lost" in [row["status"] for row in executions(connection, environment_id)]


def test_gateway_killed(server: CrashServer) -> None:
    """A gateway that is killed is started again and adopts its environments; what ran is lost, and never hangs.

    Sessions know what they knew.
    """
    environment_id = make(server)
    with server.connect() as connection:
        asked = {"idle_timeout": 600, "env": {"MODE": "test"}}
        session = connection.expect(201, "POST", f"{ENVIRONMENTS}/{environment_id}/sessions", asked)
        session_id = session["session_id"]
        execute(connection, environment_id, {"code": "known = 5", "session_id": session_id})
    running = BackgroundExecution(server, environment_id, LOOP)
    until(lambda: running_is_recorded(server, environment_id), "the execution is recorded")
    server.kill(GATEWAY)
    assert running.join() is None
    assert_adopted(server, environment_id)
    with server.connect() as connection:
        answer = execute(connection, environment_id, {"code": "known", "session_id": session_id})
        assert answer["results"] == [{"text/plain": "5"}]
        adopted = connection.expect(200, "GET", f"{ENVIRONMENTS}/{environment_id}/sessions/{session_id}")
        assert [adopted[name] for name in ("creation_time", "executions", "idle_timeout")] == [
            session["creation_time"], 2, 600.0,
        ]  # fmt: skip
        connection.expect(200, "POST", f"{ENVIRONMENTS}/{environment_id}/sessions/{session_id}/restart")
        code = "import os; ('known' in globals(), os.environ['MODE'])"
        answer = execute(connection, environment_id, {"code": code, "session_id": session_id})
        assert answer["results"] == [{"text/plain": "(False, 'test')"}]


def test_server_killed_and_started_again(server: CrashServer) -> None:
    """``kill -9`` of the server frees its port, leaves its environments alive, and the next start adopts them."""
    environment_id = make(server)
    running = BackgroundExecution(server, environment_id, LOOP)
    until(lambda: running_is_recorded(server, environment_id), "the execution is recorded")
    server.kill_all()
    assert running.join() is None
    until(lambda: not server.listeners(), "the port is free")
    assert server.processes(LAUNCHER)
    server.start()
    assert_adopted(server, environment_id)


def test_launcher_killed(server: CrashServer) -> None:
    """With the launcher its sandboxes die: their environments fail with the reason, and new ones can be made."""
    environment_id = make(server)
    running = BackgroundExecution(server, environment_id, LOOP)
    until(lambda: running_is_recorded(server, environment_id), "the execution is recorded")
    server.kill(LAUNCHER)
    answer = running.join()
    assert answer is not None
    assert answer["status"] == "lost"
    with server.until_ready() as connection:
        until(lambda: status_of(connection, environment_id) == "failed", "the environment is failed")
        row = connection.expect(200, "GET", f"{ENVIRONMENTS}/{environment_id}")
        assert "launcher died" in row["status_reason"]
        another = create(connection, "python")
        assert execute(connection, another)["stdout"] == "Hello, World!\n"


def test_terminated_in_order(server: CrashServer) -> None:
    """SIGTERM gives what runs a grace, then cancels it; everything ends, and the records say so."""
    environment_id = make(server)
    begun = f"print('begun', flush=True)\nopen('{environment_id}', 'w').close()\nwhile True: pass"
    running = BackgroundExecution(server, environment_id, begun)
    until(lambda: running_is_recorded(server, environment_id), "the execution is recorded")
    until(lambda: server.holders_of(environment_id), "it has said so")
    assert server._process is not None
    server._process.terminate()
    assert server._process.wait(60) == 0
    answer = running.join()
    assert answer is not None
    assert answer["status"] == "cancelled"
    assert answer["stdout"] == "begun\n"
    assert not server.processes(LAUNCHER)
    server.start()
    with server.connect() as connection:
        row = connection.expect(200, "GET", f"{ENVIRONMENTS}/{environment_id}")
        assert (row["status"], row["status_reason"]) == ("terminated", "the service was stopped")
        assert executions(connection, environment_id)[0]["status"] == "cancelled"


def test_acknowledged_execution_survives(server: CrashServer) -> None:
    """An execution whose answer has left is in the records after ``kill -9``, with its output."""
    environment_id = make(server)
    with server.connect() as connection:
        answered = [execute(connection, environment_id, {"code": f"print({n})"}) for n in range(20)]
    server.kill_all()
    until(lambda: not server.listeners(), "the port is free")
    server.start()
    with server.until_ready() as connection:
        kept = {row["execution_id"]: row for row in executions(connection, environment_id)}
    for answer in answered:
        assert kept[answer["execution_id"]]["stdout"] == answer["stdout"]


def test_expired_while_nobody_watched(server: CrashServer) -> None:
    """The launcher ends an environment whose lifetime is over while the server is down."""
    environment_id = until(lambda: _make_short(server), "one has run something before it expires")
    server.kill_all()
    until(lambda: not server.holders_of(environment_id), "its processes are gone")
    until(lambda: not server.listeners(), "the port is free")
    server.start()
    with server.until_ready() as connection:
        until(lambda: status_of(connection, environment_id) == "expired", "its row says so")


def _make_short(server: CrashServer) -> str | None:
    """An environment with a short life that has begun; None when that is over already, on a busy machine."""
    with server.connect() as connection:
        wanted = {"name": "short", "template": "python", "timeout": 3}
        environment_id: str = connection.expect(201, "POST", ENVIRONMENTS, wanted)["environment_id"]
        body = {"code": f"open('{environment_id}', 'w').close()"}
        answer = connection.request("POST", f"{ENVIRONMENTS}/{environment_id}/execute", body)
        return environment_id if answer.status == 200 and answer.json()["status"] == "completed" else None


def test_gateway_has_no_privileges(server: CrashServer) -> None:
    """The process that talks to the network is an ordinary user with no way back, and cannot read what root owns."""
    pid = server.process(GATEWAY)
    fields = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert all(int(number) > 100_000 for number in fields["Uid"].split() + fields["Gid"].split())
    assert fields["Groups"].strip() == ""
    assert all(int(fields[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"))
    assert fields["NoNewPrivs"] == "1"


def test_gateway_hands_on_no_descriptor(server: CrashServer) -> None:
    """The first one and its successors: what they start, as unpackers of archives, gets none of theirs."""
    for _gateway in range(2):
        pid = server.process(GATEWAY)
        numbers = [int(name) for name in os.listdir(f"/proc/{pid}/fd")]
        handed_on = [each for each in numbers if each > 2 and not _closes_on_exec(pid, each)]
        assert [os.readlink(f"/proc/{pid}/fd/{each}") for each in handed_on] == []
        server.kill(GATEWAY)
        server.until_ready().close()


def _closes_on_exec(pid: int, descriptor: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text()
    except FileNotFoundError:
        return True
    (flags,) = [int(line.split()[1], 8) for line in text.splitlines() if line.startswith("flags:")]
    return bool(flags & os.O_CLOEXEC)


def test_second_server_on_the_same_state_is_refused(server: CrashServer) -> None:
    """Two servers would undo each other's work; the second one says so and the first goes on."""
    command = [sandgate_command(), "serve", "--port", "0", "--state", str(server.state)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode != 0
    assert "Another server is running on the state folder" in second.stderr
    make(server)
