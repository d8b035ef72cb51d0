"""Pausing: how long it takes to stop an environment and to let it go on, and what whoever uses a paused one waits."""

from bench.client import Connection
from bench.context import Bench, refer
from bench.figures import Figure, Samples, Target, figure_of
from bench.sandgate_server import ENVIRONMENTS, Server, create, execute
from bench.timing import milliseconds, repeat

# What stands still has memory of its own, and threads that wake up now and then.
_HOLDING = """
import threading, time
held = bytearray(64 << 20)
def wake():
    while True:
        time.sleep(0.01)
for _ in range(8):
    threading.Thread(target=wake).start()
"""


def measure(bench: Bench) -> list[Figure]:
    """Each round is an execution, a pause and a resume, a pause and an execution that resumes."""
    plain: list[float] = []
    paused: list[float] = []
    resumed: list[float] = []
    used: list[float] = []
    with Server() as server, server.connect() as connection:
        environment = create(connection)
        path = f"{ENVIRONMENTS}/{environment}"
        connection.expect(200, "POST", f"{path}/execute", {"code": _HOLDING, "detach": True, "timeout": 3600})
        repeat(5, lambda: execute(connection, environment))

        def alternate() -> float:
            for _ in range(bench.count(40, 4)):
                plain.extend(repeat(1, lambda: execute(connection, environment)))
                paused.append(milliseconds(lambda: _ask(connection, path, "pause")))
                resumed.append(milliseconds(lambda: _ask(connection, path, "resume")))
                _ask(connection, path, "pause")
                used.extend(repeat(1, lambda: execute(connection, environment)))
            return Samples.of(plain).median

        reference = refer("the same while it runs", alternate)
    return [
        figure_of("Pause", "an environment with 64 MiB and 8 threads paused, p50", "ms", Samples.of(paused), Target()),
        figure_of("Resume", "the same goes on, p50", "ms", Samples.of(resumed), Target()),
        figure_of("Paused use", "execution in one that is paused, p50", "ms", Samples.of(used), Target(), reference),
    ]


def _ask(connection: Connection, path: str, what: str) -> None:
    """Raises ``UnexpectedAnswer``."""
    connection.expect(200, "POST", f"{path}/{what}")
