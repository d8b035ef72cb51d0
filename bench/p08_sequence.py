"""P8: a workflow of 40 steps that do next to nothing, one after another: what a durable, isolated step costs."""

from bench.context import Bench, refer
from bench.figures import Figure, Samples, Target, figure_of
from bench.prefect import prefect_seconds
from bench.runs import make, seconds, sequence
from bench.sandgate_server import Server

STEPS, N = 40, 10


def measure(bench: Bench) -> list[Figure]:
    """Each step in a sandbox of its own, its result on disk before the next one starts."""
    rounds = bench.count(15, 2)
    with Server() as server, server.connect() as connection:
        path = make(connection, sequence(STEPS, N))
        seconds(connection, path)
        samples = Samples.of([seconds(connection, path) for _ in range(rounds)])
    reference = refer(
        "Prefect 3, unisolated", lambda: Samples.of(prefect_seconds("sequence", STEPS, N, bench.count(3, 1))).median
    )
    what = f"workflow of {STEPS} steps fibo({N}), one after another"
    return [figure_of("P8", what, "s", samples, Target(at_most=0.4), reference)]
