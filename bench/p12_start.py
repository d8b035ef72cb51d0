"""P12: how soon a new server answers, and what its gateway keeps in memory."""

import time
from pathlib import Path

from bench.context import Bench
from bench.figures import Figure, Samples, Target, figure_of
from bench.sandgate_server import Server, create, delete, execute

SETTLE_S, WATCH_S = 6.0, 5.0
KIB_PER_MB = 1000 * 1000 / 1024


def measure(bench: Bench) -> list[Figure]:
    """Each start is on an empty state folder: the database, the keys and the admin are made in that time too."""
    starts: list[float] = []
    sizes: list[float] = []
    for _ in range(bench.count(5, 2)):
        with _Timed() as server:
            starts.append(server.taken_s)
            _use_once(server)
            # The gateway is by far the largest of those that hold the socket.
            sizes.append(max(resident_mb(pid) for pid in server.listeners()))
    idle = Samples.of([_idle_ms() for _ in range(bench.count(3, 1))])
    return [
        figure_of("P12", "sandgate serve to its first answer", "s", Samples.of(starts), Target(at_most=2)),
        figure_of("P12 memory", "memory of the idle gateway", "MB", Samples.of(sizes), Target(at_most=150)),
        figure_of("P12 idle", "processor time of a server with one idle environment", "ms/s", idle, Target()),
    ]


def _idle_ms() -> float:
    """Of all processes of a server together, in a second in which nobody asks for anything."""
    with Server() as server, server.connect() as connection:
        execute(connection, create(connection))
        # Spares are made.
        time.sleep(SETTLE_S)
        before = server.processor_s()
        time.sleep(WATCH_S)
        return (server.processor_s() - before) / WATCH_S * 1000


class _Timed(Server):
    """A server that keeps how long it took to answer."""

    taken_s = 0.0

    def start(self) -> float:
        self.taken_s = super().start()
        return self.taken_s


def _use_once(server: Server) -> None:
    with server.connect() as connection:
        environment = create(connection)
        execute(connection, environment)
        delete(connection, environment)


def resident_mb(pid: int) -> float:
    """The resident set of a process, shared pages counted in full."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / KIB_PER_MB
