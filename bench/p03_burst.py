"""P3: a hundred environments asked for at once, each used once, against a hundred containers of runc at once."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.client import Connection
from bench.context import Bench, refer
from bench.figures import Figure, Samples, Target, figure_of
from bench.references import Runc, finish, spawn
from bench.sandgate_server import Server, create, delete, execute
from bench.timing import Together, milliseconds, together

AT_ONCE = 100
# More than the few spares that a server keeps by default take to be made.
SPARES_S = 1.0


def measure(bench: Bench) -> list[Figure]:
    """Every request has a connection of its own, opened beforehand; any that fails ends the measurement."""
    first = [_bursts(1)[0].wall_s for _ in range(bench.count(3, 1))]
    bursts = _bursts(bench.count(5, 1))
    walls = Samples.of([burst.wall_s for burst in bursts])
    each = Samples.of([value for burst in bursts for value in burst.samples.values])
    reference = refer("runc run, 100 at once", lambda: _burst_of_runc(bench))
    what = f"{AT_ONCE} environments at once, bursts in a row"
    return [
        figure_of("P3", f"{what}, wall", "s", walls, Target(at_most=0.5), reference),
        figure_of("P3 p50", f"{what}, each, p50", "ms", each, Target(at_most=300)),
        figure_of(
            "P3 first", f"{AT_ONCE} environments at once, a server's first burst, wall", "s",
            Samples.of(first), Target(at_most=0.5), reference,
        ),
    ]  # fmt: skip


def _bursts(count: int) -> list[Together]:
    """On a server of their own that has served four environments, as one that is in use has."""
    with Server() as server:
        connections = [server.connect() for _ in range(AT_ONCE)]
        _burst(connections[:4])
        time.sleep(SPARES_S)
        bursts = [_burst(connections) for _ in range(count)]
        for connection in connections:
            connection.close()
    return bursts


def _burst(connections: list[Connection]) -> Together:
    made: list[str] = []

    def work_of(connection: Connection) -> Callable[[], list[float]]:
        def use_once() -> None:
            environment = create(connection)
            made.append(environment)
            execute(connection, environment)

        return lambda: [milliseconds(use_once)]

    result = together([work_of(connection) for connection in connections])
    for environment in made:
        delete(connections[0], environment)
    return result


def _burst_of_runc(bench: Bench) -> float:
    with tempfile.TemporaryDirectory(prefix="sandgate-bench-") as folder:
        runc = Runc(bench.interpreter, Path(folder))
        started = time.perf_counter()
        running = [(spawn(arguments), arguments) for arguments in (runc.arguments() for _ in range(AT_ONCE))]
        for pid, arguments in running:
            finish(pid, arguments)
        return time.perf_counter() - started
