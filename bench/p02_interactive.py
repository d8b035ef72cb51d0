"""P2: from asking for an environment to the answer of its first execution, against bubblewrap and runc."""

import tempfile
import time
from pathlib import Path

from bench.client import Connection
from bench.context import Bench, refer
from bench.figures import Figure, Samples, Target, figure_of
from bench.references import Runc, bwrap, run_once
from bench.sandgate_server import Server, create, execute
from bench.timing import milliseconds

WARM_UP = 3
# A template's first environment has its spares made; the server has been up for so long since then.
SETTLE_S = 5.0


def measure(bench: Bench) -> list[Figure]:
    """One after another; those that were made go on living, so that no clean-up falls into the measured time.

    Most of the first hundred find spares; of those after them, without a pause, most wait until theirs are made.
    """
    with Server() as server, server.connect() as connection:
        for _ in range(WARM_UP):
            _time_to_interactive(connection)
        time.sleep(SETTLE_S)
        ours = Samples.of([_time_to_interactive(connection) for _ in range(bench.count(100, 20))])
        later = Samples.of([_time_to_interactive(connection) for _ in range(bench.count(100, 20))])
    runs = bench.count(30, 5)
    in_bwrap = refer("bwrap + python3.9", lambda: _median_of(bwrap(bench.interpreter), runs))
    in_runc = refer("runc run", lambda: _median_of_runc(bench, runs))
    worst = ours.percentile(99)
    what = "create and first execute"
    return [
        figure_of("P2", f"{what}, p50", "ms", ours, Target(at_most=10, ratio_at_most=0.5), in_bwrap),
        figure_of("P2 runc", f"{what}, p50", "ms", ours, Target(at_most=10, ratio_at_most=0.15), in_runc),
        figure_of("P2 later", f"{what}, another 100 without a pause, p50", "ms", later, Target(at_most=10), in_runc),
        Figure("P2 p99", f"{what}, p99", "ms", worst, (worst, worst), Target(at_most=30)),
    ]


def _time_to_interactive(connection: Connection) -> float:
    return milliseconds(lambda: execute(connection, create(connection)))


def _median_of(arguments: list[str], runs: int) -> float:
    run_once(arguments)
    return Samples.of([run_once(arguments) for _ in range(runs)]).median


def _median_of_runc(bench: Bench, runs: int) -> float:
    with tempfile.TemporaryDirectory(prefix="sandgate-bench-") as folder:
        runc = Runc(bench.interpreter, Path(folder))
        run_once(runc.arguments())
        return Samples.of([run_once(runc.arguments()) for _ in range(runs)]).median
