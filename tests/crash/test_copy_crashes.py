"""``kill -9`` while files go straight from an environment to its copies: no copy is half there, nothing is left."""

import os
import re
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, create, execute
from sandgate.config.paths import run_folder, state_name
from sandgate.config.settings import Settings
from sandgate.sandbox.launcher.cgroup import GroupLimits, Tree
from sandgate.sandbox.launcher.hierarchies import find_hierarchies
from sandgate.sandbox.launcher.processes import parent_of
from sandgate.store.schema import environments
from tests.crash.chaos import ChaosServer
from tests.crash.invariants import read_rows
from tests.crash.server_process import GATEWAY, LAUNCHER, BackgroundRequest, CrashServer, until

pytestmark = pytest.mark.needs_root_namespaces
FILES, SIZE = 6000, 2000
# What copies is counted with the copy, so that a copy of little power is filled slowly.
SLOW = {"cpu": 0.05}
FILL = f"for n in range({FILES}): open(f'f{{n}}', 'w').write('x' * {SIZE})"
COUNT = "import os\nprint(len(os.listdir('.')), sum(os.stat(name).st_size for name in os.listdir('.')))"
WHOLE = f"{FILES} {FILES * SIZE}\n"
# A process outlives the gateway, and goes on as long as its environment does.
TICKING = {"command": "while :; do echo >> /tmp/ticks; sleep 0.1; done", "timeout": 600}
TICKS = "import os\nprint(os.path.exists('/tmp/ticks') and os.stat('/tmp/ticks').st_size)"


@pytest.fixture(scope="module")
def copying_server() -> Iterator[ChaosServer]:
    """One without spares, so that every sandbox is somebody's."""
    settings = {"SANDGATE_DRAIN_GRACE_S": "0.3", "SANDGATE_SPARE_SANDBOXES": "0", "SANDGATE_MOST_SPARE_SANDBOXES": "0"}
    with ChaosServer(settings) as running:
        yield running


@pytest.fixture
def server(copying_server: ChaosServer) -> CrashServer:
    """The server, every part of it well again, and nothing in it."""
    copying_server.revive()
    with copying_server.until_ready() as connection:
        for row in connection.expect(200, "GET", f"{ENVIRONMENTS}?limit=200")["environments"]:
            connection.expect(200, "DELETE", f"{ENVIRONMENTS}/{row['environment_id']}")
    copying_server.until_few_sandboxes(0)
    return copying_server


def _launcher(server: CrashServer) -> int:
    """The launcher itself; what works for it bears its name, too."""

    def find() -> list[int]:
        named = server.processes(LAUNCHER)
        found = [pid for pid in named if _is_above(pid, named)]
        return found if len(found) == 1 else []

    (pid,) = until(find, "there is one launcher")
    return int(pid)


def _is_above(pid: int, named: Collection[int]) -> bool:
    with suppress(OSError):
        return parent_of(pid) not in named
    return False


def _errands(launcher: int) -> list[int]:
    """The processes that work for it: its children that bear its name."""
    found = []
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == LAUNCHER:
                found.append(int(pid))
    return found


def _kill_launcher(server: CrashServer) -> None:
    """And none of those that work for it."""
    pid = _launcher(server)
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in server.processes(LAUNCHER), "the launcher is gone")


def _has_begun(pid: int) -> bool:
    """Whether it has filled a part of the copy, whose root it is in."""
    with suppress(OSError):
        return 0 < len(os.listdir(f"/proc/{pid}/root/workspace")) < FILES
    return False


def _files(server: CrashServer) -> set[str]:
    """All files of the server's but its database's."""
    folders = server.state, run_folder(Settings(state=server.state))
    found = {os.path.join(at, name) for folder in folders for at, _folders, names in os.walk(folder) for name in names}
    return {path for path in found if not path.startswith(str(server.database))}


def _make(server: CrashServer) -> str:
    with server.connect() as connection:
        first = create(connection, "python", limits=SLOW)
        # On a slow machine so little power takes longer over it than code may usually take.
        execute(connection, first, {"code": FILL, "timeout": 60})
        connection.expect(201, "POST", f"{ENVIRONMENTS}/{first}/processes", TICKING)
    return first


class Fork:
    """A request for copies, two of which are half filled when this has been made, and stay so."""

    def __init__(self, server: CrashServer, first: str) -> None:
        launcher = _launcher(server)
        self._request = BackgroundRequest(server, f"{ENVIRONMENTS}/{first}/fork", {"count": 2})
        self._errands: list[int] = until(lambda: self._find_busy(launcher), "two are being filled")
        for pid in self._errands:
            # It neither ends by itself from here on, nor because it is done.
            os.kill(pid, signal.SIGSTOP)
        assert all(map(_has_begun, self._errands))

    @staticmethod
    def _find_busy(launcher: int) -> list[int]:
        found = _errands(launcher)
        return found if len(found) == 2 and all(map(_has_begun, found)) else []

    def wait(self) -> int | None:
        """How it was answered; None when the connection broke."""
        answer = self._request.wait()
        return None if answer is None else answer.status

    def until_gone(self) -> None:
        """Wait until what filled them has ended, too."""
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in self._errands), "nothing fills a copy any more")


def _copies_of(server: CrashServer, first: str) -> list[dict[str, Any]]:
    _runs, tables = read_rows(server.database)
    return [dict(row) for row in tables[environments.name] if row["forked_from"] == first]


def _assert_none_is_left(server: CrashServer, first: str, sandboxes: int) -> None:
    """Each copy that nobody was told of has ended with a reason, and of none is there anything."""

    def settled() -> bool:
        return all(row["status"] in ("failed", "terminated") for row in _copies_of(server, first))

    until(settled, "no copy hangs")
    assert all(row["status_reason"] for row in _copies_of(server, first))
    until(lambda: server.sandboxes() == sandboxes, f"there are {sandboxes} sandboxes")
    until(lambda: _errands(_launcher(server)) == [], "nothing works for the launcher")


def _assert_nothing_is_left(server: CrashServer, connection: Connection, last: str, files: set[str]) -> None:
    """Once the last environment is deleted there is what there was before the first."""
    connection.expect(200, "DELETE", f"{ENVIRONMENTS}/{last}")
    until(lambda: server.sandboxes() == 0, "the sandboxes are gone")
    until(lambda: _files(server) <= files, lambda: f"these files are gone: {_files(server) - files}")


def _fork_whole(connection: Connection, first: str) -> None:
    """A copy that is asked for now has all of the files."""
    made = connection.expect(201, "POST", f"{ENVIRONMENTS}/{first}/fork", {"count": 1})["environments"]
    copy = made[0]["environment_id"]
    assert execute(connection, copy, {"code": COUNT})["stdout"] == WHOLE
    connection.expect(200, "DELETE", f"{ENVIRONMENTS}/{copy}")


def _assert_it_goes_on(connection: Connection, first: str) -> None:
    """The original has all that it had, and what runs there runs."""
    assert execute(connection, first, {"code": COUNT})["stdout"] == WHOLE
    ticks = execute(connection, first, {"code": TICKS})["stdout"]
    until(lambda: execute(connection, first, {"code": TICKS})["stdout"] != ticks, "its process goes on")


def _kill_every_part(server: CrashServer) -> None:
    # The first would start the others again.
    server.kill_all()
    server.kill_one(GATEWAY)
    _kill_launcher(server)


def _start_again(server: CrashServer) -> None:
    until(lambda: not server.listeners(), "the port is free")
    server.start()


@pytest.mark.parametrize("part", ["gateway", "server"])
def test_the_original_goes_on_without_its_gateway(server: CrashServer, part: str) -> None:
    """It does not stay still, and can be copied again; of the copies nothing is left but rows that say why."""
    files = _files(server)
    first = _make(server)
    forking = Fork(server, first)
    if part == "gateway":
        server.kill(GATEWAY)
    else:
        server.kill_all()
        _start_again(server)
    assert forking.wait() is None
    with server.until_ready() as connection:
        _assert_none_is_left(server, first, 1)
        forking.until_gone()
        _assert_it_goes_on(connection, first)
        _fork_whole(connection, first)
        _assert_nothing_is_left(server, connection, first, files)


@pytest.mark.parametrize("part", ["launcher", "everything"])
def test_nothing_outlives_the_launcher(server: CrashServer, part: str) -> None:
    """All of them fail with the reason, and what was filling the copies ends at once; others can be made and copied."""
    files = _files(server)
    first = _make(server)
    forking = Fork(server, first)
    if part == "launcher":
        _kill_launcher(server)
    else:
        _kill_every_part(server)
    # Before there is another launcher to clear up.
    forking.until_gone()
    if part == "everything":
        _start_again(server)
    assert forking.wait() in (None, 409, 503)
    with server.until_ready() as connection:
        _assert_none_is_left(server, first, 0)
        row = connection.expect(200, "GET", f"{ENVIRONMENTS}/{first}")
        assert row["status"] == "failed"
        assert row["status_reason"]
        another = _make(server)
        _fork_whole(connection, another)
        _assert_nothing_is_left(server, connection, another, files)


def test_what_packs_does_not_outlive_the_launcher(server: CrashServer) -> None:
    """It ends at once, whether or not another launcher comes to clear up; no half of a snapshot is kept."""
    first = _make(server)
    group = Tree(
        find_hierarchies(Path("/proc/self/mountinfo").read_text()),
        f"sandgate-{state_name(Settings(state=server.state))}",
    ).group("packing")
    group.change(GroupLimits(None, 50, None))
    packing = BackgroundRequest(server, f"{ENVIRONMENTS}/{first}/snapshots", {})
    (pid,) = until(group.pids, "it is packed")
    until(lambda: _is_inside(pid), "it has entered the sandbox")
    os.kill(pid, signal.SIGSTOP)
    _kill_every_part(server)
    until(lambda: not Path(f"/proc/{pid}").exists(), "nothing packs any more")
    assert packing.wait() is None
    _start_again(server)
    server.until_ready().close()
    until(lambda: not list((server.state / "snapshots").iterdir()), "the half of a snapshot is gone")


def _is_inside(pid: int) -> bool:
    """Whether it has become the user, with the sandbox's root."""
    with suppress(OSError):
        (users,) = re.findall(r"^Uid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return os.stat(f"/proc/{pid}/root/workspace/f0").st_uid == int(users)
    return False
