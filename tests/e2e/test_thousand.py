"""A thousand environments at once, and executions in a hundred of them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, create, execute
from bench.timing import together
from tests.crash.server_process import GATEWAY, LAUNCHER, CrashServer, until

pytestmark = pytest.mark.needs_root_namespaces
MANY, BUSY, CLIENTS = 1000, 100, 4
SETTINGS = {
    "SANDGATE_MAX_ENVIRONMENTS_PER_USER": f"{MANY}",
    "SANDGATE_SPARE_SANDBOXES": "4",
    "SANDGATE_MOST_SPARE_SANDBOXES": "4",
}
# Everybody is there before anybody goes on, which proves that they all run at once.
CODE = """
import os, time
n = {number}
print(n * n)
while not os.path.exists("go"): time.sleep(0.01)
"""
GO = {"code": "open('go', 'w').close()"}
# A tenth of what a thousand interpreters that were started would need, with room for a hundred that run.
MOST_GATEWAY_KIB = 400 * 1024
MOST_BYTES_EACH = 4 * 1024 * 1024
# Far above what a hello takes beside so many, on a busy machine too.
PATIENCE_S = 30.0
# The first of the hundred waits until the last is there and all before it are let go, one after another.
LONGEST_S = 300.0


def _make_many(server: CrashServer) -> list[str]:
    made: list[str] = []
    connections = [server.connect() for _ in range(CLIENTS)]

    def work_of(connection: Connection) -> Callable[[], list[float]]:
        def work() -> list[float]:
            made.extend(create(connection, "python") for _ in range(MANY // CLIENTS))
            return []

        return work

    together([work_of(connection) for connection in connections])
    watcher = connections[0]
    creating = f"{ENVIRONMENTS}?status=creating&limit=1"
    until(lambda: not watcher.expect(200, "GET", creating)["environments"], "all are made", LONGEST_S)
    for connection in connections:
        connection.close()
    return made


def _memory_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def test_a_thousand_environments_with_a_hundred_at_work() -> None:
    """Each of the hundred answers what it was asked, the others answer meanwhile, memory is bounded, all ends clean."""
    with CrashServer(SETTINGS) as server:
        before = _available_bytes()
        made = _make_many(server)
        assert len(set(made)) == MANY

        busy = made[:: MANY // BUSY]

        def work(number: int) -> tuple[str, float]:
            with server.connect() as connection:
                connection._socket.settimeout(LONGEST_S)
                answer = execute(connection, busy[number], {"code": CODE.format(number=number), "timeout": LONGEST_S})
                return answer["stdout"], time.monotonic()

        with ThreadPoolExecutor(BUSY) as threads:
            working = [threads.submit(work, number) for number in range(BUSY)]
            slowest_s = 0.0
            with server.connect() as neighbour:
                until(lambda: _running(neighbour) == BUSY, "all hundred run at once")
                for environment_id in (made[1], made[MANY // 2 + 1], made[-1]):
                    begun = time.monotonic()
                    assert execute(neighbour, environment_id)["stdout"] == "Hello, World!\n"
                    slowest_s = max(slowest_s, time.monotonic() - begun)
                for environment_id in busy:
                    execute(neighbour, environment_id, GO)
            end = time.monotonic()
            answers = [each.result() for each in working]
        assert [stdout for stdout, _ended_at in answers] == [f"{number * number}\n" for number in range(BUSY)]
        assert slowest_s < PATIENCE_S
        assert max(ended_at for _stdout, ended_at in answers) < end + PATIENCE_S
        gateway, launcher = server.process(GATEWAY), server.process(LAUNCHER)
        assert _memory_kib(gateway) < MOST_GATEWAY_KIB
        assert _memory_kib(launcher) < MOST_GATEWAY_KIB
        # The memory is the machine's, on which others work, too.
        until(lambda: before - _available_bytes() < MOST_BYTES_EACH * MANY, "memory is bounded")
        server.stop_process()
        until(lambda: server.sandboxes() == 0 and not Path(f"/proc/{launcher}").exists(), "all has ended")


def _running(connection: Connection) -> float:
    text = connection.request("GET", "/metrics").body.decode()
    line = next(line for line in text.splitlines() if line.startswith("sandgate_executions_running "))
    return float(line.split()[1])
