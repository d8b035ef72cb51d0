"""P1: one piece of code in an environment, against the bare interpreter on the host."""

from bench.context import Bench, refer
from bench.figures import Figure, Samples, Target, figure_of
from bench.references import bare, run_once
from bench.sandgate_server import Server, create, execute
from bench.timing import repeat

ROUNDS = 10
WARM_UP = 5


def measure(bench: Bench) -> list[Figure]:
    """Alternates between the two, so that a noisy minute of the machine hits both."""
    each = bench.count(30, 6)
    ours: list[float] = []
    theirs: list[float] = []
    with Server() as server, server.connect() as connection:
        environment = create(connection)
        repeat(WARM_UP, lambda: execute(connection, environment))

        def alternate() -> float:
            for _ in range(ROUNDS):
                ours.extend(repeat(each, lambda: execute(connection, environment)))
                theirs.extend(run_once(bare(bench.interpreter)) for _ in range(max(2, each // 5)))
            return Samples.of(theirs).median

        reference = refer("python3.9 -c, bare", alternate)
        if not ours:
            ours.extend(repeat(each * ROUNDS, lambda: execute(connection, environment)))
    target = Target(at_most=4, ratio_at_most=0.30)
    return [figure_of("P1", "execute print('Hello, World!'), p50", "ms", Samples.of(ours), target, reference)]
