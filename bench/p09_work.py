"""P9: a workflow of 10 steps that compute, against the same computation in one bare interpreter."""

from bench.context import Bench, refer
from bench.figures import Figure, Samples, Target, figure_of
from bench.prefect import prefect_seconds
from bench.references import Interpreter, run_once
from bench.runs import FIBO, make, seconds, sequence
from bench.sandgate_server import Server

STEPS, N = 10, 33


def measure(bench: Bench) -> list[Figure]:
    """The bare interpreter computes it between every two runs, because machines are not equally fast all the time."""
    rounds, n = bench.count(3, 1), bench.count(N, 20)
    ours: list[float] = []
    bare: list[float] = []
    with Server() as server, server.connect() as connection:
        path = make(connection, sequence(STEPS, n))
        seconds(connection, make(connection, sequence(1, 1)))
        for _ in range(rounds):
            bare.append(_bare_seconds(bench.interpreter, n))
            ours.append(seconds(connection, path))
    samples, what = Samples.of(ours), f"workflow of {STEPS} steps fibo({n})"
    own = refer("the same calls in one bare interpreter", lambda: Samples.of(bare).median)
    peer = refer("Prefect 3, unisolated", lambda: Samples.of(prefect_seconds("sequence", STEPS, n, 1)).median)
    return [
        figure_of("P9", what, "s", samples, Target(ratio_at_most=1.05), own),
        figure_of("P9 peer", what, "s", samples, Target(), peer),
    ]


def _bare_seconds(interpreter: Interpreter, n: int) -> float:
    program = f"{FIBO}for _ in range({STEPS}): fibo({n})"
    return run_once([interpreter.path, "-c", program]) / 1000
