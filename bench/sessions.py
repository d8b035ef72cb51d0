"""Sessions: the first execution in a new one, and the next, against an execution of its own in the same run."""

import time

from bench.client import Connection
from bench.context import Bench, refer
from bench.figures import Figure, Samples, Target, figure_of
from bench.sandgate_server import ENVIRONMENTS, HELLO, Server, create, execute
from bench.timing import repeat

NEXT = 20


def measure(bench: Bench) -> list[Figure]:
    """Each round is some executions of their own, then a new session with one execution and more."""
    plain: list[float] = []
    opened: list[float] = []
    first: list[float] = []
    following: list[float] = []
    with Server() as server, server.connect() as connection:
        environment = create(connection)
        repeat(5, lambda: execute(connection, environment))

        def alternate() -> float:
            for _ in range(bench.count(40, 4)):
                plain.extend(repeat(5, lambda: execute(connection, environment)))
                _use_one(connection, environment, opened, first, following)
            return Samples.of(plain).median

        reference = refer("an execution of its own", alternate)
    return [
        figure_of("Session open", "POST sessions, p50", "ms", Samples.of(opened), Target(at_most=20), reference),
        figure_of(
            "Session first", "first execution in it, p50", "ms", Samples.of(first), Target(ratio_at_most=1), reference
        ),
        figure_of(
            "Session next", "every further one, p50", "ms", Samples.of(following), Target(ratio_at_most=1), reference
        ),
    ]


def _use_one(
    connection: Connection, environment: str, opened: list[float], first: list[float], following: list[float]
) -> None:
    path = f"{ENVIRONMENTS}/{environment}/sessions"
    started = time.perf_counter()
    session_id = connection.expect(201, "POST", path, {})["session_id"]
    opened.append((time.perf_counter() - started) * 1000)
    body = {**HELLO, "session_id": session_id}
    first.extend(repeat(1, lambda: execute(connection, environment, body)))
    following.extend(repeat(NEXT, lambda: execute(connection, environment, body)))
    connection.expect(200, "DELETE", f"{path}/{session_id}")
