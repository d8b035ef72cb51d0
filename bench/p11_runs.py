"""P11 of runs: ten thousand that are stored and a thousand that live at once, all through the real server."""

from collections.abc import Callable, Mapping, Sequence

from bench.client import Connection
from bench.context import Bench, say
from bench.figures import Figure, Reference, Samples, Target, figure_of
from bench.p12_start import resident_mb
from bench.runs import TEMPLATE, WORKFLOWS
from bench.sandgate_server import Server
from bench.timing import repeat, together

RUNS = "/api/v1/orchestrator/runs"
CLIENTS = 4
# Enough for a whole page of each list.
FEW, FEW_LIVE, PAGE = 100, 60, 50
STEP = {"name": "hello", "type": "code_execution", "config": {"code": "print('Hello')", "template": TEMPLATE}}
ASK = {"name": "ask", "type": "approval"}
KB_PER_MB = 1000.0


def measure(bench: Bench) -> list[Figure]:
    """Each stored run has had a step in a sandbox of its own; each live one waits for an approval."""
    stored, lives, asked = bench.count(10_000, 200), bench.count(1_000, 50), bench.count(200, 30)
    with Server({"SANDGATE_MAX_RUNS": str(lives + 2 * FEW_LIVE)}) as server, server.connect() as connection:
        work, wait = _make(connection, "stored", STEP), _make(connection, "live", ASK)
        _start_all(server, f"{work}/start?wait=60", FEW)
        first = connection.expect(200, "POST", f"{wait}/start")["run_id"]
        _start_all(server, f"{wait}/start", FEW_LIVE)
        few = _times(connection, wait, first, asked)
        say(f"  storing {stored:,} runs")
        at_first = _gateway_mb(server)
        rate = stored / _start_all(server, f"{work}/start?wait=60", stored)
        with_stored = _gateway_mb(server)
        say(f"  starting {lives:,} runs that wait")
        live_rate = lives / _start_all(server, f"{wait}/start", lives)
        with_live = _gateway_mb(server)
        # The first connection has been idle for longer than the server keeps one.
        with server.connect() as later:
            many = _times(later, wait, first, asked)
    where = f"{stored:,} runs stored, {lives:,} live"
    return [
        _once("P11 stored", f"runs a second of one step, until {stored:,} are stored", "/s", rate, Target()),
        _once("P11 live", f"runs a second that begin to wait, until {lives:,} do", "/s", live_rate, Target()),
        _once("P11 memory", f"gateway's memory of each of {lives:,} live runs", "kB",
              (with_live - with_stored) * KB_PER_MB / lives, Target(at_most=64)),
        _once("P11 growth", f"gateway's memory grown by {stored:,} runs that have ended", "MB",
              with_stored - at_first, Target(at_most=50)),
        *(_compared(what, few[what], many[what], where) for what in few),
    ]  # fmt: skip


def _compared(what: str, few: Samples, many: Samples, where: str) -> Figure:
    reference = Reference(f"{FEW} stored, {FEW_LIVE} live", few.median)
    return figure_of("P11", f"{what}, {where}, p50", "ms", many, Target(at_most=10, ratio_at_most=1.5), reference)


def _once(name: str, what: str, unit: str, value: float, target: Target) -> Figure:
    return Figure(name, what, unit, value, (value, value), target)


def _make(connection: Connection, name: str, step: Mapping[str, object]) -> str:
    made = connection.expect(201, "POST", WORKFLOWS, {"name": name, "steps": [step]})
    return f"{WORKFLOWS}/{made['workflow_id']}"


def _start_all(server: Server, path: str, count: int) -> float:
    """Start so many runs by some clients, each as soon as it is answered; seconds until the last answer."""
    connections = [server.connect() for _ in range(CLIENTS)]
    shares = [len(range(number, count, CLIENTS)) for number in range(CLIENTS)]
    taken_s = together([_starts(*pair, path) for pair in zip(connections, shares, strict=True)]).wall_s
    for connection in connections:
        connection.close()
    return taken_s


def _starts(connection: Connection, count: int, path: str) -> Callable[[], list[float]]:
    return lambda: repeat(count, lambda: connection.expect(200, "POST", path))


def _times(connection: Connection, workflow: str, run_id: str, count: int) -> Mapping[str, Samples]:
    questions = {
        "status of a workflow's newest run": f"{workflow}/status",
        "status of its oldest live run": f"{workflow}/status?run_id={run_id}",
        "list of runs": f"{RUNS}?limit={PAGE}",
        "list of live runs": f"{RUNS}?status=waiting&limit={PAGE}",
        "list of workflows": f"{WORKFLOWS}?limit={PAGE}",
    }
    return {what: _ask(connection, path, count) for what, path in questions.items()}


def _ask(connection: Connection, path: str, count: int) -> Samples:
    connection.expect(200, "GET", path)
    return Samples.of(repeat(count, lambda: connection.expect(200, "GET", path)))


def _gateway_mb(server: Server) -> float:
    """The gateway is by far the largest of those that hold the socket."""
    sizes: Sequence[float] = [resident_mb(pid) for pid in server.listeners()]
    return max(sizes)
