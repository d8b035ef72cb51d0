"""P11: lists and gets with many rows, against the same with few."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.client import Connection
from bench.context import Bench, say
from bench.figures import Figure, Reference, Samples, Target, figure_of
from bench.runs import WORKFLOWS
from bench.sandgate_server import ENVIRONMENTS, Server, create, execute, make_folder
from bench.timing import repeat
from sandgate.core.ids import make_environment_id, make_execution_id, make_run_id

FEW = 1_000
BATCH = 5_000
POLL_S = 0.05
DEADLINE_S = 20.0


def measure(bench: Bench) -> list[Figure]:
    """Rows are copies of an ended environment, an execution and a run, written while nobody serves the database."""
    many = bench.count(100_000, 10_000)
    few, lots = _times(FEW, bench), _times(many, bench)
    target = Target(at_most=10, ratio_at_most=1.5)
    return [_figure(what, few[what], lots[what], many, target) for what in few]


def _figure(what: str, few: Samples, lots: Samples, many: int, target: Target) -> Figure:
    reference = Reference(f"with {FEW:,} rows", few.median)
    return figure_of("P11", f"{what}, {many:,} rows, p50", "ms", lots, target, reference)


def _times(rows: int, bench: Bench) -> Mapping[str, Samples]:
    """Times of each kind of question against a database of this many environments and executions."""
    say(f"  with {rows:,} rows")
    folder = make_folder()
    with Server(folder=folder) as server, server.connect() as connection:
        environment = _make_ended_environment(connection)
        live = create(connection)
        execution = execute(connection, live)["execution_id"]
        run = _make_ended_run(connection)
    database = next((folder / "state").glob("*.db"))
    _multiply(database, "environments", "environment_id", environment, rows, make_environment_id)
    _multiply(database, "executions", "execution_id", execution, rows, make_execution_id)
    _multiply(database, "runs", "run_id", run["run_id"], rows, make_run_id)
    with Server(folder=folder) as server, server.connect() as connection:
        questions = {**_questions(environment, live, execution), **_questions_about_runs(run)}
        times = {what: _ask(connection, path, bench.count(200, 30)) for what, path in questions.items()}
    _remove(folder)
    return times


def _questions(environment: str, live: str, execution: str) -> Mapping[str, str]:
    return {
        "list of ended environments": f"{ENVIRONMENTS}?status=expired&limit=50",
        "list of live environments": f"{ENVIRONMENTS}?limit=50",
        "get of an environment": f"{ENVIRONMENTS}/{environment}",
        "list of executions": f"{ENVIRONMENTS}/{live}/executions?limit=50",
        "get of an execution": f"{ENVIRONMENTS}/{live}/executions/{execution}",
    }


def _questions_about_runs(run: Mapping[str, Any]) -> Mapping[str, str]:
    return {
        "list of runs": "/api/v1/orchestrator/runs?limit=50",
        "list of the runs of a workflow": f"/api/v1/orchestrator/runs?workflow_id={run['workflow_id']}&limit=50",
        "status of a workflow": f"{WORKFLOWS}/{run['workflow_id']}/status?run_id={run['run_id']}",
    }


def _ask(connection: Connection, path: str, count: int) -> Samples:
    connection.expect(200, "GET", path)
    return Samples.of(repeat(count, lambda: connection.expect(200, "GET", path)))


def _make_ended_environment(connection: Connection) -> str:
    wanted = {"name": "ended", "template": "python-3.9", "timeout": 1}
    made: str = connection.expect(201, "POST", ENVIRONMENTS, wanted)["environment_id"]
    deadline = time.monotonic() + DEADLINE_S
    while connection.expect(200, "GET", f"{ENVIRONMENTS}/{made}")["status"] != "expired":
        if time.monotonic() > deadline:
            raise TimeoutError(f"{made} has not expired {DEADLINE_S} s after its lifetime of 1 s")
        time.sleep(POLL_S)
    return made


def _make_ended_run(connection: Connection) -> Mapping[str, Any]:
    step = {"name": "hello", "type": "code_execution", "config": {"code": "print('Hello')"}}
    made = connection.expect(201, "POST", WORKFLOWS, {"name": "bench", "steps": [step]})
    run: Mapping[str, Any] = connection.expect(200, "POST", f"{WORKFLOWS}/{made['workflow_id']}/start?wait=20")
    return run


def _multiply(database: Path, table: str, key: str, model: str, rows: int, make_id: Callable[[], Any]) -> None:
    """Write copies of one row under new ids."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute(f"SELECT * FROM {table} WHERE {key} = ?", (model,)).fetchone())
        statement = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)})"
        for start in range(0, rows, BATCH):
            batch = [row | {key: make_id()} for _ in range(min(BATCH, rows - start))]
            connection.executemany(statement, batch)


def _remove(folder: Path) -> None:
    # The folder was given to two servers one after another, so neither of them removed it.
    shutil.rmtree(folder, ignore_errors=True)
