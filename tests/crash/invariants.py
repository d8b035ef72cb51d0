"""What has to hold of the rows after any crash, whatever was under way; read from the database, not from the server.

Nothing acknowledged is lost; one result a step and item, one ending an attempt, each attempt after the one before;
no step before what it needs; items side by side within their bound; what has ended has ended wholly; what lives has a
lease, and something that takes it on. One tick, one run; what a schedule or a webhook says that it started is there.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from sandgate.core.run import LIVE_RUN_STATUSES, LIVE_STEP_STATUSES, RunStatus, StepStatus
from sandgate.core.workflow import StepType
from sandgate.store.connections import Location, connector_for
from sandgate.store.schema import environments, executions, run_history, run_steps, runs, workflow_versions
from sandgate.store.trigger_schema import schedules, webhook_deliveries, webhook_keys
from sandgate.workflows.definition import parse_definition
from sandgate.workflows.state import Graph, Phase

Row = Mapping[str, Any]
Key = tuple[str, int | None]
_NO_ITEM = -1
_RETRIED = "run_retried"
_PARTS = (run_steps, run_history)
_TRIGGERS = (schedules, webhook_keys, webhook_deliveries)


@dataclass(frozen=True)
class RunRows:
    """All rows of one run."""

    run: Row
    graph: Graph
    steps: Mapping[Key, Row]
    history: Sequence[Row]

    @property
    def name(self) -> str:
        """Its id."""
        return str(self.run["run_id"])

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.run["status"] in LIVE_RUN_STATUSES


@dataclass
class Acknowledged:
    """What the server has said: workflows and runs that are there, how runs have ended, what was decided."""

    workflows: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    ends: dict[str, str] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    decided: set[tuple[str, str]] = field(default_factory=set)
    environments: set[str] = field(default_factory=set)
    executions: dict[str, str] = field(default_factory=dict)


def read_rows(location: Location) -> tuple[list[RunRows], Mapping[str, list[Row]]]:
    """Every run with its rows, and the rows of the other tables by name, from a database that may be in use."""
    engine = connector_for(location, checkpoint=False).reader
    with engine.connect() as connection:
        tables: dict[str, list[Row]] = {
            table.name: [dict(row._mapping) for row in connection.execute(sa.select(table))]
            for table in (runs, run_steps, run_history, workflow_versions, environments, executions, *_TRIGGERS)
        }
    graphs = {
        (row["workflow_id"], row["version"]): Graph(parse_definition(row["definition"]))
        for row in tables["workflow_versions"]
    }
    parts: dict[tuple[str, str], list[Row]] = {}
    for table in _PARTS:
        for row in tables[table.name]:
            parts.setdefault((table.name, row["run_id"]), []).append(row)
    found = []
    for run in tables["runs"]:
        # A row that is pending says what a missing one says: a retry leaves such, to count attempts on.
        steps = [row for row in parts.get(("run_steps", run["run_id"]), []) if row["status"] != StepStatus.PENDING]
        history = sorted(parts.get(("run_history", run["run_id"]), []), key=lambda row: row["number"])
        by_key = {(row["step"], None if row["item"] == _NO_ITEM else row["item"]): row for row in steps}
        found.append(RunRows(run, graphs[run["workflow_id"], run["workflow_version"]], by_key, history))
    return found, tables


def check_rows(location: Location, acknowledged: Acknowledged, *, lease_s: float = 10.0) -> list[RunRows]:
    """Fails with everything that does not hold; answers the runs."""
    found, tables = read_rows(location)
    now = datetime.now(UTC)
    broken = [problem for rows in found for problem in _problems_of(rows, now, lease_s)]
    broken += _lost(found, tables, acknowledged)
    broken += _triggered(tables)
    assert not broken, "These invariants do not hold:\n" + "\n".join(broken)
    return found


def _problems_of(rows: RunRows, now: datetime, lease_s: float) -> Iterator[str]:
    for check in (_history_is_whole, _attempts_follow, _needs_come_first, _items_keep_their_bound):
        for problem in check(rows):
            yield f"{rows.name}: {problem}"
    yield from (f"{rows.name}: {problem}" for problem in (_lives(rows, now, lease_s) if rows.is_live else _ended(rows)))


def _history_is_whole(rows: RunRows) -> Iterator[str]:
    numbers = [event["number"] for event in rows.history]
    if numbers != list(range(rows.run["events"])):
        yield f"the row counts {rows.run['events']} events, the history has {numbers}"


def _attempts_follow(rows: RunRows) -> Iterator[str]:
    """At most one result a step and item, and one ending an attempt; the rows say what the history says."""
    attempts: dict[Key, int] = {}
    running: set[Key] = set()
    ended: dict[Key, str] = {}
    for event in rows.history:
        if event["kind"] == _RETRIED:
            ended = {key: end for key, end in ended.items() if not _is_done_again(key, end, event)}
        if event["step"] is None:
            continue
        key, kind = (event["step"], event["item"]), event["kind"]
        if key in ended:
            yield f"{key} has {kind} after its end"
        if kind == "step_started":
            if key in running or event["attempt"] != attempts.get(key, 0) + 1:
                yield f"{key} began attempt {event['attempt']} after {attempts.get(key, 0)}"
            attempts[key] = event["attempt"]
            running.add(key)
        elif kind == "attempt_failed":
            if key not in running:
                yield f"{key} ended an attempt that did not run"
            running.discard(key)
        elif kind.removeprefix("step_") in set(StepStatus) - LIVE_STEP_STATUSES:
            ended[key] = kind.removeprefix("step_")
            running.discard(key)
    for key, row in rows.steps.items():
        if row["status"] not in LIVE_STEP_STATUSES and ended.get(key) != row["status"]:
            yield f"the row of {key} says {row['status']}, the history {ended.get(key)}"
        if row["status"] in LIVE_STEP_STATUSES and key in ended:
            yield f"the row of {key} says {row['status']}, the history {ended[key]}"
        if row["attempt"] < attempts.get(key, 0):
            yield f"the row of {key} counts {row['attempt']} attempts, the history {attempts[key]}"
    yield from (f"{key} has no row" for key in {*running, *ended} - set(rows.steps))


def _is_done_again(key: Key, end: str, event: Row) -> bool:
    """Whether a retry begins a step or an item anew: what succeeded of a step that did not stays."""
    return key[0] in event["details"]["steps"] and (key[1] is None or end != StepStatus.SUCCEEDED)


def _needs_come_first(rows: RunRows) -> Iterator[str]:
    over: set[str] = set()
    for event in rows.history:
        if event["kind"] == _RETRIED:
            over -= set(event["details"]["steps"])
        name = event["step"]
        if name is None:
            continue
        if event["kind"] in ("step_started", "step_waiting") and not over.issuperset(rows.graph.steps[name].needs):
            yield f"{name} began before all that it needs was over"
        if event["item"] is None and event["kind"].removeprefix("step_") in set(StepStatus) - LIVE_STEP_STATUSES:
            over.add(name)


def _items_keep_their_bound(rows: RunRows) -> Iterator[str]:
    live: dict[str, set[int]] = {}
    for event in rows.history:
        name, item = event["step"], event["item"]
        if item is None:
            continue
        if event["kind"] == "step_started":
            live.setdefault(name, set()).add(item)
        elif event["kind"].startswith("step_"):
            live.setdefault(name, set()).discard(item)
        bound = rows.graph.steps[name].max_parallel
        if bound is not None and len(live.get(name, ())) > bound:
            yield f"{len(live[name])} items of {name} ran at once, {bound} is the bound"


def _ended(rows: RunRows) -> Iterator[str]:
    words = [event["kind"] for event in rows.history if event["kind"] in _RUN_ENDS]
    status = rows.run["status"]
    if words[-1:] != [f"run_{status}"] or rows.history[-1]["kind"] != f"run_{status}":
        yield f"it is {status}, and its history ends with {rows.history[-1]['kind']}"
    if rows.run["wake_at"] is not None or rows.run["finished_at"] is None:
        yield "it has ended and has a wake-up, or no end"
    open_steps = [key for key, row in rows.steps.items() if row["status"] in LIVE_STEP_STATUSES]
    if open_steps:
        yield f"it has ended, and these have not: {open_steps}"
    phases = rows.graph.phases
    missing = {step.name for phase in (Phase.MAIN, Phase.FINAL) for step in phases[phase]} - {k[0] for k in rows.steps}
    if missing:
        yield f"it has ended without {sorted(missing)}"


_RUN_ENDS = {f"run_{status}" for status in set(RunStatus) - LIVE_RUN_STATUSES}


def _lives(rows: RunRows, now: datetime, lease_s: float) -> Iterator[str]:
    until = rows.run["lease_until"]
    if until is None or until < now - timedelta(seconds=2 * lease_s):
        yield f"it lives, and nobody has held it since {until}"
    live = {key: row for key, row in rows.steps.items() if row["status"] in LIVE_STEP_STATUSES}
    works = any(row["status"] == StepStatus.RUNNING and row["items"] is None for row in live.values())
    asks = any(rows.graph.steps[key[0]].type in (StepType.APPROVAL, StepType.WORKFLOW) for key in live)
    if not works and not asks and rows.run["wake_at"] is None:
        yield f"it lives, and nothing will take it on: {[(key, row['status']) for key, row in live.items()]}"


def _lost(found: Sequence[RunRows], tables: Mapping[str, list[Row]], said: Acknowledged) -> Iterator[str]:
    by_id = {rows.name: rows for rows in found}
    kept = {row["workflow_id"] for row in tables["workflow_versions"]}
    yield from (f"workflow {name} is lost" for name in said.workflows - kept)
    yield from (f"run {name} is lost" for name in {*said.runs, *said.ends} - set(by_id))
    for name, status in said.ends.items():
        if name in by_id and by_id[name].run["status"] != status:
            yield f"run {name} had ended as {status} and is {by_id[name].run['status']}"
    for name in said.cancelled & set(by_id):
        if by_id[name].run["status"] != RunStatus.CANCELLED:
            yield f"run {name} was cancelled and is {by_id[name].run['status']}"
    for name, step in said.decided:
        row = by_id[name].steps.get((step, None)) if name in by_id else None
        if row is None or row["status"] in LIVE_STEP_STATUSES:
            yield f"the decision about {step} of {name} is lost"
    known = {row["environment_id"] for row in tables["environments"]}
    yield from (f"environment {name} is lost" for name in said.environments - known)
    records = {row["execution_id"]: row for row in tables["executions"]}
    for name, output in said.executions.items():
        if name not in records or records[name]["stdout"] != output:
            yield f"execution {name} is lost, or is not what was answered"


def _triggered(tables: Mapping[str, list[Row]]) -> Iterator[str]:
    """What was started by schedules and webhooks was started once, and what they say of it holds."""
    ticks = Counter((run["trigger_id"], run["trigger_at"]) for run in tables["runs"] if run["trigger_at"] is not None)
    yield from (f"tick {tick} has {count} runs" for tick, count in ticks.items() if count > 1)
    there = {run["run_id"] for run in tables["runs"]}
    said = {row["last_run_id"] for row in tables["schedules"]}
    said |= {row["run_id"] for table in _TRIGGERS[1:] for row in tables[table.name]}
    yield from (f"run {name} was started by a trigger and is not there" for name in said - there - {None})
    called = Counter(row["run_id"] for row in tables["webhook_deliveries"] if row["status"] == "accepted")
    yield from (f"run {name} was started by {count} deliveries" for name, count in called.items() if count > 1)
