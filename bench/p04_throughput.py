"""P4: executions a second of eight clients, against a loop of bare forks of the same interpreter."""

from collections.abc import Callable

from bench.client import Connection
from bench.context import Bench, refer
from bench.figures import Figure, Samples, Target, figure_of
from bench.references import fork_loop
from bench.sandgate_server import Server, create, execute
from bench.timing import repeat, together

CLIENTS = 8
FORKS = 2000


def measure(bench: Bench) -> list[Figure]:
    """Each client has an environment and a connection of its own and asks again as soon as it is answered."""
    rounds, each = bench.count(5, 1), bench.count(100, 20)
    with Server() as server:
        connections = [server.connect() for _ in range(CLIENTS)]
        environments = [create(connection) for connection in connections]
        works = [_work(*pair, each) for pair in zip(connections, environments, strict=True)]
        together(works)
        rates = Samples.of([CLIENTS * each / together(works).wall_s for _ in range(rounds)])
        for connection in connections:
            connection.close()
    reference = refer(
        "fork and exit, bare", lambda: Samples.of([fork_loop(bench.interpreter, FORKS) for _ in range(rounds)]).median
    )
    target = Target(at_least=500, ratio_at_least=0.4)
    return [figure_of("P4", f"executes a second, {CLIENTS} clients", "/s", rates, target, reference)]


def _work(connection: Connection, environment: str, count: int) -> Callable[[], list[float]]:
    return lambda: repeat(count, lambda: execute(connection, environment))
