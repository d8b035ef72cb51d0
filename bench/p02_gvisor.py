"""P2 and P1 of the gvisor class: with a spare, without one, and once it is there, against ``runsc run``."""

import tempfile
import time
from pathlib import Path

from bench.client import Connection
from bench.context import VERSION, Bench, refer
from bench.figures import Figure, Reference, Samples, Target, figure_of
from bench.references import Runsc, bare, run_once
from bench.sandgate_server import ENVIRONMENTS, Server, delete, execute
from bench.timing import milliseconds

# What a spare takes to be made while the server is idle, and as much again.
_PAUSE_S = 1.5
_SPARES = "SANDGATE_GVISOR_SPARE_SANDBOXES"


def measure(bench: Bench) -> list[Figure]:
    """One after another, with a pause in which the next spare is made; deleted, because each holds much memory."""
    runs = bench.count(20, 4)
    in_runsc = refer("runsc run", lambda: _median_of_runsc(bench, runs))
    alone = refer("python3.9 bare", lambda: Samples.of([run_once(bare(bench.interpreter)) for _ in range(runs)]).median)
    with Server({_SPARES: "2"}) as server, server.connect() as connection:
        warm = _interactive(connection, bench.count(100, 4), _PAUSE_S)
        executions = _executions(connection, bench.count(200, 20))
    with Server({_SPARES: "0"}) as server, server.connect() as connection:
        cold = _interactive(connection, runs, 0.0)
    worst, with_a_spare = warm.percentile(99), "create and first execute with a spare, gvisor"
    return [
        _row("P2 gvisor", f"{with_a_spare}, p50", warm, in_runsc),
        Figure("P2 gvisor p99", f"{with_a_spare}, p99", "ms", worst, (worst, worst), Target()),
        _row("P2 gvisor", "create and first execute without a spare, gvisor, p50", cold, in_runsc),
        _row("P1 gvisor", "execute, gvisor, p50", executions, alone),
    ]


def _row(name: str, what: str, samples: Samples, reference: Reference) -> Figure:
    return figure_of(name, what, "ms", samples, Target(), reference)


def _create(connection: Connection) -> str:
    wanted = {"name": "bench", "template": f"python-{VERSION}", "isolation": "gvisor"}
    environment_id: str = connection.expect(201, "POST", ENVIRONMENTS, wanted)["environment_id"]
    return environment_id


def _interactive(connection: Connection, runs: int, pause_s: float) -> Samples:
    samples = []
    for number in range(runs + 1):
        made: list[str] = []

        def interact(made: list[str] = made) -> None:
            made.append(_create(connection))
            execute(connection, made[0])

        taken = milliseconds(interact)
        # The first one finds neither a spare nor anything in memory.
        samples += [taken] if number else []
        delete(connection, made[0])
        time.sleep(pause_s)
    return Samples.of(samples)


def _executions(connection: Connection, count: int) -> Samples:
    made = _create(connection)
    execute(connection, made)
    samples = Samples.of([milliseconds(lambda: execute(connection, made)) for _ in range(count)])
    delete(connection, made)
    return samples


def _median_of_runsc(bench: Bench, runs: int) -> float:
    with tempfile.TemporaryDirectory(prefix="sandgate-bench-") as folder:
        runsc = Runsc(bench.interpreter, Path(folder))
        run_once(runsc.arguments())
        return Samples.of([run_once(runsc.arguments()) for _ in range(runs)]).median
