"""P6: a thousand idle environments: what each costs the machine, how soon they are there, how fast the last one is."""

import time
from collections.abc import Callable
from pathlib import Path

from bench.client import Connection
from bench.context import Bench, say
from bench.figures import Figure, Samples, Target, figure_of
from bench.sandgate_server import ENVIRONMENTS, Server, create, execute
from bench.timing import repeat, together

CLIENTS = 4
# Until spares are made, after the first and after many.
SETTLE_S = 5.0
EXECUTES = 30
KIB_PER_MB = 1000 * 1000 / 1024


def measure(bench: Bench) -> list[Figure]:
    """The first is timed while it is alone, the last while all others live. Spares are counted with them."""
    count = bench.count(1000, 100)
    with Server({"SANDGATE_MAX_ENVIRONMENTS_PER_USER": str(count + 1)}) as server, server.connect() as connection:
        before = available_kib()
        first = create(connection)
        time.sleep(SETTLE_S)
        alone = Samples.of(_executes(connection, first))
        taken_s, made = _make(server, connection, count)
        # Not waited for by luck: what the kernel still frees or accounts late belongs to the figure.
        time.sleep(SETTLE_S)
        each_mb = (before - available_kib()) / KIB_PER_MB / count
        last = Samples.of(_executes(connection, made[-1]))
        say("  ending them")
    return [
        _once("P6", f"memory of each of {count:,} idle environments", "MB", each_mb, 2.0),
        _once("P6 made", f"{count:,} environments made", "s", taken_s, 8.0 * count / 1000),
        figure_of("P6 last", f"execute in the last of {count:,}, p50", "ms", last, Target()),
        _once("P6 ratio", "execute in the last, by the first when alone", "×", last.median / alone.median, 1.5),
    ]


def _once(name: str, what: str, unit: str, value: float, at_most: float) -> Figure:
    return Figure(name, what, unit, value, (value, value), Target(at_most=at_most))


def available_kib() -> int:
    """What the kernel says could still be used, without swapping."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def _executes(connection: Connection, environment: str) -> list[float]:
    execute(connection, environment)
    return repeat(EXECUTES, lambda: execute(connection, environment))


def _make(server: Server, watcher: Connection, count: int) -> tuple[float, list[str]]:
    """Seconds until the last one runs, and the ids in the order in which they were asked for."""
    made: list[str] = []
    started = time.perf_counter()
    connections = [server.connect() for _ in range(CLIENTS)]

    def work_of(connection: Connection) -> Callable[[], list[float]]:
        return lambda: repeat(count // CLIENTS, lambda: made.append(create(connection)))

    together([work_of(connection) for connection in connections])
    while watcher.expect(200, "GET", f"{ENVIRONMENTS}?status=creating&limit=1")["environments"]:
        time.sleep(0.01)
    taken_s = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return taken_s, made
