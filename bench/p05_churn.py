"""P5: environments made, used and deleted a second."""

from collections.abc import Callable

from bench.client import Connection
from bench.context import Bench
from bench.figures import Figure, Samples, Target, figure_of
from bench.sandgate_server import Server, create, delete, execute
from bench.timing import repeat, together

CLIENTS = 4
NOTHING = {"code": "pass"}


def measure(bench: Bench) -> list[Figure]:
    """Each environment runs one empty piece of code, which proves that it was made before it was deleted."""
    rounds, each = bench.count(5, 1), bench.count(50, 10)
    with Server() as server:
        connections = [server.connect() for _ in range(CLIENTS)]
        works = [_work(connection, each) for connection in connections]
        together(works[:1])
        rates = Samples.of([CLIENTS * each / together(works).wall_s for _ in range(rounds)])
        for connection in connections:
            connection.close()
    what = f"environments made, used and deleted a second, {CLIENTS} clients"
    return [figure_of("P5", what, "/s", rates, Target(at_least=100))]


def _work(connection: Connection, count: int) -> Callable[[], list[float]]:
    def live_once() -> None:
        environment = create(connection)
        execute(connection, environment, NOTHING)
        delete(connection, environment)

    return lambda: repeat(count, live_once)
