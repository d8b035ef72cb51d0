"""Snapshots and copies of environments over HTTP, with servers that are killed in the middle."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, Server, create, execute
from tests.abilities import ABILITIES
from tests.crash.server_process import until as soon
from tests.e2e.waiting import until
from tests.runtime.hosts import descendants

pytestmark = pytest.mark.needs_root_namespaces

SNAPSHOTS = "/api/v1/sandbox/snapshots"
WALLED = ["standard", pytest.param("gvisor", marks=pytest.mark.needs_gvisor)]
BUSY = """
import os, time
n = 0
while True:
    n += 1
    with open('a', 'w') as a: a.write(str(n))
    with open('b', 'w') as b: b.write(str(n))
"""


def _snapshot(connection: Connection, environment_id: str, **body: Any) -> dict[str, Any]:
    made: dict[str, Any] = connection.expect(201, "POST", f"{ENVIRONMENTS}/{environment_id}/snapshots", body)
    return made


def _begin_with(connection: Connection, snapshot_id: str, **body: Any) -> str:
    made = connection.expect(201, "POST", ENVIRONMENTS, {"name": "new", "snapshot_id": snapshot_id, **body})
    environment_id: str = made["environment_id"]
    return environment_id


def _read(connection: Connection, environment_id: str, code: str = "print(open('kept').read())") -> str:
    ran = execute(connection, environment_id, {"code": code})
    assert ran["status"] == "completed", ran
    text: str = ran["stdout"]
    return text.strip()


@pytest.mark.parametrize("isolation", WALLED)
def test_one_class_begins_with_what_another_has_left(server: Server, isolation: str) -> None:
    """Code that comes right behind waits for the files; the row tells where they are from."""
    other = "gvisor" if isolation == "standard" else "standard"
    with server.connect() as connection:
        first = create(connection, isolation=isolation)
        _read(connection, first, "open('kept', 'w').write('it'); print()")
        row = _snapshot(connection, first, name="s", metadata={"k": "v"})
        assert (row["files"], row["consistent"], row["isolation"]) == (1, True, isolation)
        for each in (isolation, other) if not ABILITIES["needs_gvisor"].find_lack() else (isolation,):
            environment_id = _begin_with(connection, row["snapshot_id"], isolation=each)
            assert _read(connection, environment_id) == "it"
            got = connection.expect(200, "GET", f"{ENVIRONMENTS}/{environment_id}")
            assert (got["snapshot_id"], got["status"]) == (row["snapshot_id"], "running")
            connection.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")
        assert connection.expect(200, "GET", f"{SNAPSHOTS}?name=s")["snapshots"] == [row]
        connection.expect(200, "DELETE", f"{SNAPSHOTS}/{row['snapshot_id']}")
        connection.expect(404, "GET", f"{SNAPSHOTS}/{row['snapshot_id']}")
        connection.expect(200, "DELETE", f"{ENVIRONMENTS}/{first}")


@pytest.mark.parametrize("isolation", WALLED)
def test_copies_of_a_busy_environment(server: Server, isolation: str) -> None:
    """What writes all the time goes on; each copy has the files of the one moment, and nothing that runs."""
    with server.connect() as connection, server.connect() as busy:
        first = create(connection, isolation=isolation)
        began = busy.expect(
            200, "POST", f"{ENVIRONMENTS}/{first}/execute", {"code": BUSY, "detach": True, "timeout": 600}
        )
        _read(connection, first, "import os, time\nwhile not os.path.exists('b'): time.sleep(0.01)")
        made = connection.expect(201, "POST", f"{ENVIRONMENTS}/{first}/fork", {"count": 3})["environments"]
        pairs = set()
        for copy in made:
            assert (copy["forked_from"], copy["isolation"]) == (first, isolation)
            code = "import time\nlook = lambda: (open('a').read(), open('b').read())\nprint([look(), look()])"
            pairs.add(_read(connection, copy["environment_id"], code))
            connection.expect(200, "DELETE", f"{ENVIRONMENTS}/{copy['environment_id']}")
        assert len(pairs) == 1
        (pair,) = pairs
        one, again = eval(pair)
        assert one == again
        now = int(_read(connection, first, "print(open('b').read() or 0)"))
        path = f"{ENVIRONMENTS}/{first}/executions/{began['execution_id']}"
        assert connection.expect(200, "GET", path)["status"] == "running"
        until(lambda: int(_read(connection, first, "print(open('b').read() or 0)")) != now, "it goes on")
        connection.expect(200, "DELETE", f"{ENVIRONMENTS}/{first}")


@pytest.fixture
def own_server() -> Iterator[Server]:
    """One that may be killed."""
    with Server() as running:
        yield running


def _gateway(server: Server) -> int:
    """The process that has the connections."""
    assert server._process is not None
    below = descendants(server._process.pid)
    (pid,) = [pid for pid, (_name, parent) in below.items() if parent == server._process.pid and _serves(pid)]
    return pid


def _serves(pid: int) -> bool:
    return b"launcher" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def _files(server: Server) -> list[str]:
    folder = server.state / "snapshots"
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def test_snapshots_survive_restarts_and_half_of_one_does_not(own_server: Server) -> None:
    """A gateway that is killed in the middle leaves no file, and an environment that goes on; what was kept is there
    afterwards, and after the server was stopped and started again.
    """
    server = own_server
    with server.connect() as connection:
        first = create(connection)
        _read(connection, first, "open('kept', 'w').write('it'); print()")
        row = _snapshot(connection, first)
        large = "import os\nfor n in range(60): open(f'f{n}', 'wb').write(os.urandom(1 << 20) * 3)"
        execute(connection, first, {"code": large})
    kept = f"{row['snapshot_id']}.tar"
    content = (server.state / "snapshots" / kept).read_bytes()
    # A gateway that dies more often than so is not started again.
    for _attempt in range(4):
        until(lambda: _files(server) == [kept], "nothing else is left")
        with server.connect() as connection:
            gateway = _gateway(server)
            _ask_and_leave(connection, first)
            # Where this is late, it is whole already, and all is tried again.
            soon(lambda: _files(server) != [kept], "a file is being written")
            os.kill(gateway, signal.SIGKILL)
        until(lambda: _answers(server), "the next gateway serves")
        was_whole = _delete_others(server, row["snapshot_id"])
        if not was_whole:
            break
    assert not was_whole
    assert _files(server) == [kept]
    with server.connect() as connection:
        assert connection.expect(200, "GET", SNAPSHOTS)["snapshots"] == [row]
        assert _read(connection, first) == "it"
        assert _read(connection, _begin_with(connection, row["snapshot_id"])) == "it"
    server.stop_process()
    server.start()
    with server.connect() as connection:
        assert connection.expect(200, "GET", SNAPSHOTS)["snapshots"] == [row]
        assert (server.state / "snapshots" / kept).read_bytes() == content
        assert _read(connection, _begin_with(connection, row["snapshot_id"])) == "it"


def _delete_others(server: Server, kept: str) -> bool:
    """Whether a snapshot was whole before the kill, after all; it is gone now."""
    with server.connect() as connection:
        ids = {row["snapshot_id"] for row in connection.expect(200, "GET", SNAPSHOTS)["snapshots"]} - {kept}
        for each in ids:
            connection.expect(200, "DELETE", f"{SNAPSHOTS}/{each}")
    return bool(ids)


def _ask_and_leave(connection: Connection, environment_id: str) -> None:
    """Nobody waits for the answer."""
    path = f"{ENVIRONMENTS}/{environment_id}/snapshots"
    connection._socket.sendall(connection._start("POST", path, 2) + b"{}")


def _answers(server: Server) -> bool:
    try:
        with server.connect() as connection:
            return connection.request("GET", SNAPSHOTS).status == 200
    except OSError:
        return False
