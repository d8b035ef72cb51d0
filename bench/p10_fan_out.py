"""P10: a step of 400 items that do next to nothing: how many steps a second the service starts, runs and records."""

from bench.context import Bench, refer
from bench.figures import Figure, Samples, Target, figure_of
from bench.prefect import prefect_seconds
from bench.runs import make, seconds, step
from bench.sandgate_server import Server

ITEMS, N = 400, 10


def measure(bench: Bench) -> list[Figure]:
    """As many side by side as the server runs by default."""
    items = bench.count(ITEMS, 40)
    with Server() as server, server.connect() as connection:
        path = make(connection, [step("each", N, foreach=list(range(items)))])
        seconds(connection, path)
        rates = Samples.of([items / seconds(connection, path) for _ in range(bench.count(7, 1))])
    reference = refer(
        "Prefect 3, unisolated",
        lambda: Samples.of([items / taken for taken in prefect_seconds("fan-out", items, N, bench.count(3, 1))]).median,
    )
    return [figure_of("P10", f"steps a second, fan-out of {items}", "/s", rates, Target(at_least=150), reference)]
