"""Lists, look-ups and counts cost the same however many rows there are."""

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sandgate.core.idempotency import KeyClaim
from sandgate.core.ids import ApiKeyId, EnvironmentId, ExecutionId, RunId, SnapshotId, UserId, VolumeId, WorkflowId
from sandgate.core.page import PageRequest
from sandgate.core.run import LIVE_RUN_STATUSES, RunStatus
from sandgate.core.states import LIVE_ENVIRONMENT_STATUSES, EnvironmentStatus
from sandgate.store.base import EnvironmentFilter, RunFilter
from sandgate.store.connections import connector_for
from sandgate.store.revisions import migrate
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, OWNER
from tests.contract.store.statements import statements_sent
from tests.postgres import PostgresServer

FEW, MANY = 1_000, 100_000
RATIO = 1.5
PAGE = PageRequest()
MIDDLE = PageRequest(before_id="env-000000000500")
ENVIRONMENT = EnvironmentId("env-000000000007")
EXPIRED = frozenset({EnvironmentStatus.EXPIRED})

VOLUME = VolumeId("vol-000000000007")
VOLUME_OWNER = UserId("user-000000000007")
WORKFLOW = WorkflowId("workflow-000000000007")
RUN = RunId("run-000000000900")
# When leases run out, in microseconds.
FAR = 10**17

# The same in both databases. The live rows are the oldest, which is the worst for lists that begin with the newest.
_NUMBERS = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows})"
_ID = "'{prefix}-' || substr(CAST(1000000000000 + n AS TEXT), 2)"
FILLING = (
    f"""INSERT INTO environments {_NUMBERS}
        SELECT {_ID.format(prefix="env")}, '{OWNER}', CASE WHEN n & 511 = 0 THEN 'rare' ELSE 'usual' END,
               'python-3.11', 'standard', CASE WHEN n <= 60 THEN 'running' WHEN n & 1 = 0 THEN 'expired'
               ELSE 'terminated' END, NULL, 60, n, n, n, CASE WHEN n > 60 AND n & 1 = 1 THEN n END,
               '{{{{}}}}', '{{{{}}}}', 'one', NULL, NULL, 'delete', NULL, NULL, NULL, NULL, NULL, NULL
          FROM numbers""",
    f"""INSERT INTO executions {_NUMBERS}
        SELECT {_ID.format(prefix="exec")}, '{ENVIRONMENT}', '{OWNER}',
               CASE WHEN n <= 30 THEN 'running' ELSE 'completed' END, 30, n, CASE WHEN n > 30 THEN n END, 1, 0,
               {{false}}, {{false}}, NULL, NULL, {{blob}}, {{blob}}, NULL, NULL
          FROM numbers""",
    f"""INSERT INTO users {_NUMBERS}
        SELECT {_ID.format(prefix="user")}, 'name-' || n, 'user', 'hash', {{false}}, n, n FROM numbers""",
    f"""INSERT INTO api_keys {_NUMBERS}
        SELECT {_ID.format(prefix="key")}, '{OWNER}', 'label', {{blob}}, n, NULL, NULL FROM numbers""",
    f"""INSERT INTO workflows {_NUMBERS}
        SELECT {_ID.format(prefix="workflow")}, '{OWNER}', 'name', 1, n, n, CASE WHEN n & 1 = 0 THEN n END, '{{{{}}}}'
          FROM numbers""",
    f"""INSERT INTO workflow_versions {_NUMBERS}
        SELECT {_ID.format(prefix="workflow")}, 1, n, '{{{{}}}}' FROM numbers""",
    f"""INSERT INTO superseded_versions {_NUMBERS}
        SELECT {_ID.format(prefix="workflow")}, 0, '{OWNER}', 1 FROM numbers""",
    f"""INSERT INTO run_sizes {_NUMBERS}
        SELECT {_ID.format(prefix="run")}, '{OWNER}', 1 FROM numbers""",
    f"""INSERT INTO run_signals {_NUMBERS}
        SELECT {_ID.format(prefix="signal")}, {_ID.format(prefix="run")}, 'cancel', n, '{{{{}}}}' FROM numbers""",
    f"""INSERT INTO artifacts {_NUMBERS}
        SELECT {_ID.format(prefix="artifact")}, {_ID.format(prefix="run")}, 'a', -1, 1, 'path', 1, {{blob}}, n,
               'pack', 0
          FROM numbers""",
    f"""INSERT INTO runs {_NUMBERS}
        SELECT {_ID.format(prefix="run")}, '{WORKFLOW}', '{OWNER}', CASE WHEN n & 511 = 0 THEN 'rare' ELSE 'usual' END,
               1, CASE WHEN n <= 30 THEN 'running' WHEN n & 511 = 0 THEN 'failed' ELSE 'succeeded' END, n, n,
               CASE WHEN n > 30 THEN n END, NULL, NULL, NULL, 2, 1, 'one', {FAR}, NULL, '{{{{}}}}',
               NULL, NULL, NULL, 0, NULL, NULL, 'api', NULL, NULL, '{{{{}}}}'
          FROM numbers""",
    f"""INSERT INTO run_steps {_NUMBERS}
        SELECT {_ID.format(prefix="run")}, 'a', -1, 'succeeded', 1, 0, NULL, n, n, NULL, 1, 0, NULL, NULL, {{blob}},
               {{blob}}, 0, NULL
          FROM numbers""",
    f"""INSERT INTO run_history {_NUMBERS}
        SELECT '{RUN}', n, n, 'step_started', 'a', NULL, n, '{{{{}}}}' FROM numbers""",
    f"""INSERT INTO webhook_deliveries {_NUMBERS}
        SELECT {_ID.format(prefix="delivery")}, 'webhook-000000000007', n, 'accepted', 1, 'text/plain',
               {_ID.format(prefix="run")}, NULL
          FROM numbers""",
    f"""INSERT INTO volumes {_NUMBERS}
        SELECT {_ID.format(prefix="vol")}, {_ID.format(prefix="user")}, 'data', 1, n, 'one', {{false}} FROM numbers""",
    f"""INSERT INTO environment_volumes {_NUMBERS}
        SELECT {_ID.format(prefix="env")}, {_ID.format(prefix="vol")} FROM numbers""",
    f"INSERT INTO revoked_tokens {_NUMBERS} SELECT 'token-' || n, n FROM numbers",
    f"""INSERT INTO idempotency {_NUMBERS}
        SELECT '{OWNER}', 'key-' || n, {{blob}}, 200, n, {{blob}}, NULL, NULL FROM numbers""",
    f"""INSERT INTO snapshots {_NUMBERS}
        SELECT {_ID.format(prefix="snap")}, {_ID.format(prefix="user")}, '{ENVIRONMENT}', 'name', 'python-3.11',
               'standard', n, 1, 1, 1, 0, {{true}}, {{blob}}, 'one', '{{{{}}}}'
          FROM numbers""",
)

Call = Callable[[SqlStore], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "environment": lambda store: store.environments.find(ENVIRONMENT),
    "volume": lambda store: store.volumes.find(VOLUME),
    "volumes of an owner": lambda store: store.volumes.list(VOLUME_OWNER, None, PAGE),
    "volumes": lambda store: store.volumes.list(None, None, PAGE),
    "volumes of a name": lambda store: store.volumes.find_named(VOLUME_OWNER, ["data"]),
    "what an owner has of volumes": lambda store: store.volumes.held(VOLUME_OWNER),
    "who has a volume": lambda store: store.volumes.find_users([VOLUME]),
    "volumes to be removed": lambda store: store.volumes.list_condemned("one"),
    "live environments of an owner": lambda store: store.environments.list(
        EnvironmentFilter(OWNER, LIVE_ENVIRONMENT_STATUSES), PAGE
    ),
    "live environments": lambda store: store.environments.list(
        EnvironmentFilter(statuses=LIVE_ENVIRONMENT_STATUSES), PAGE
    ),
    "environments of an owner": lambda store: store.environments.list(EnvironmentFilter(OWNER), PAGE),
    "environments": lambda store: store.environments.list(EnvironmentFilter(), PAGE),
    "a later page of environments": lambda store: store.environments.list(EnvironmentFilter(OWNER), MIDDLE),
    "ended environments": lambda store: store.environments.list(EnvironmentFilter(OWNER, EXPIRED), PAGE),
    "environments of a name that is not used": lambda store: store.environments.list(
        EnvironmentFilter(OWNER, name="unknown"), PAGE
    ),
    "live environments of an unused name": lambda store: store.environments.list(
        EnvironmentFilter(OWNER, LIVE_ENVIRONMENT_STATUSES, name="unknown"), PAGE
    ),
    "environments for adoption": lambda store: store.environments.list_live(),
    "environments of a server": lambda store: store.environments.list_live("one"),
    "first word of a server": lambda store: store.servers.join("one", NOW, 60),
    "count of live environments": lambda store: store.environments.count_live(),
    "count of live environments of an owner": lambda store: store.environments.count_live(OWNER),
    "execution": lambda store: store.executions.find(ExecutionId("exec-000000000900")),
    "executions": lambda store: store.executions.list(ENVIRONMENT, PAGE),
    "a later page of executions": lambda store: store.executions.list(
        ENVIRONMENT, PageRequest(before_id="exec-000000000500")
    ),
    "executions of another environment": lambda store: store.executions.list(EnvironmentId("env-x"), PAGE),
    "pruning of nothing": lambda store: store.executions.prune(NOW - timedelta(days=90_000 // 5), 100),
    "pruning of a batch": lambda store: store.executions.prune(NOW, 20),
    "lost executions": lambda store: store.executions.mark_lost(NOW),
    "lost executions of a server": lambda store: store.executions.mark_lost(NOW, server_id="one"),
    "run": lambda store: store.runs.find(RUN),
    "newest run": lambda store: store.runs.find_newest(WORKFLOW),
    "runs": lambda store: store.runs.list(RunFilter(), PAGE),
    "runs of an owner": lambda store: store.runs.list(RunFilter(OWNER), PAGE),
    "runs of a workflow": lambda store: store.runs.list(RunFilter(OWNER, WORKFLOW), PAGE),
    "live runs": lambda store: store.runs.list(RunFilter(statuses=LIVE_RUN_STATUSES), PAGE),
    "live runs of an owner": lambda store: store.runs.list(RunFilter(OWNER, statuses=LIVE_RUN_STATUSES), PAGE),
    "succeeded runs": lambda store: store.runs.list(RunFilter(statuses=frozenset({RunStatus.SUCCEEDED})), PAGE),
    "cancelled runs of a workflow": lambda store: store.runs.list(
        RunFilter(OWNER, WORKFLOW, frozenset({RunStatus.CANCELLED})), PAGE
    ),
    "runs of a name that is not used": lambda store: store.runs.list(RunFilter(OWNER, workflow_name="unknown"), PAGE),
    "runs of a rare name": lambda store: store.runs.list(
        RunFilter(OWNER, workflow_name="rare"), PageRequest(before_id="run-000000002000")
    ),
    "runs of last year": lambda store: store.runs.list(
        RunFilter(OWNER, created_after=NOW, created_before=NOW + timedelta(days=365)), PAGE
    ),
    "steps": lambda store: store.runs.list_steps(RUN),
    "steps to show": lambda store: store.runs.show_steps(RUN),
    "one step": lambda store: store.runs.find_step(RUN, "a", None),
    "part of a history": lambda store: store.runs.list_history(RUN, 500, 50),
    "next entry of a history": lambda store: store.runs.list_history(RUN, 500, 1),
    "who keeps too many runs by now": lambda store: store.retention.find_over(1, NOW),
    "who keeps too many artifacts by now": lambda store: store.artifacts.find_over(1, NOW),
    "artifacts of a run": lambda store: store.artifacts.list(RUN, PAGE),
    "snapshot": lambda store: store.snapshots.find(SnapshotId("snap-000000000007")),
    "snapshots": lambda store: store.snapshots.list(None, PAGE),
    "snapshots of an owner": lambda store: store.snapshots.list(OWNER, PAGE),
    "what an owner has in snapshots": lambda store: store.snapshots.measure(OWNER),
    "pruning of no snapshot": lambda store: store.snapshots.prune(NOW.replace(year=1969), 100),
    "claim of nothing": lambda store: store.runs.claim("two", NOW, 10, 100),
    "first lease that runs out": lambda store: store.runs.find_free_in_s("two", NOW),
    "leases": lambda store: store.runs.renew("one", NOW, 10),
    "live runs of a template": lambda store: store.templates.count_runs("t@1", OWNER),
    "pruning of no run": lambda store: store.retention.prune_runs(NOW - timedelta(days=90_000 // 5), 20),
    "pruning of runs": lambda store: store.retention.prune_runs(NOW, 20),
    "pruning of a few workflows": lambda store: store.retention.prune_workflows(NOW, 20),
    "pruning of a few environments": lambda store: store.retention.prune_environments(NOW, 20),
    "user": lambda store: store.users.find(OWNER),
    "user by name": lambda store: store.users.find_by_name("name-7"),
    "users": lambda store: store.users.list(PAGE),
    "API key": lambda store: store.credentials.find_api_key(ApiKeyId("key-000000000007")),
    "API keys": lambda store: store.credentials.list_api_keys(OWNER, PAGE),
    "revoked token": lambda store: store.credentials.is_revoked("token-7"),
    "idempotency key": lambda store: store.idempotency.claim(
        KeyClaim(OWNER, "key-7", "claim-1", "one"), b"", at=NOW, fresh_after=NOW
    ),
    "unanswered keys": lambda store: store.idempotency.release_unanswered(),
    "unanswered keys of a server": lambda store: store.idempotency.release_unanswered("one"),
}


def _fill(location: Path | str, rows: int) -> None:
    migrate(location)
    engine = connector_for(location, checkpoint=False).writer
    with engine.begin() as connection:
        blob = "X''" if connection.dialect.name == "sqlite" else r"'\x'::bytea"
        false = "0" if connection.dialect.name == "sqlite" else "false"
        for statement in FILLING:
            connection.exec_driver_sql(statement.format(rows=rows, blob=blob, false=false, true=f"NOT {false}"))


async def _statements_of(location: Path | str, call: Call) -> list[tuple[str, Any]]:
    store = SqlStore(location, read_threads=1)
    await store.open()
    with statements_sent() as statements:
        await call(store)
    await store.close()
    return statements


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A small and a large database."""
    folder = tmp_path_factory.mktemp("scale")
    paths = {rows: folder / f"{rows}.db" for rows in (FEW, MANY)}
    for rows, path in paths.items():
        _fill(path, rows)
    return paths


def _instructions(path: Path, statements: list[tuple[str, Any]]) -> int:
    """How many instructions of SQLite's machine the statements take; unlike time, always the same."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.set_progress_handler(count, 1)
        for statement, parameters in statements:
            run = connection.executemany if isinstance(parameters, list) else connection.execute
            run(statement, parameters).fetchall()
        connection.set_progress_handler(None, 1)
        connection.execute("ROLLBACK")
    return taken


@pytest.mark.parametrize("name", CALLS)
async def test_a_hundred_times_the_rows_cost_no_more_in_sqlite(sizes: dict[int, Path], name: str) -> None:
    """Counted in instructions, which the plan of a statement and the rows it looks at decide."""
    path = sizes[FEW].with_name("asked.db")
    _copy(sizes[FEW], path)
    statements = await _statements_of(path, CALLS[name])
    few, many = (_instructions(sizes[rows], statements) for rows in (FEW, MANY))
    assert few > 0
    assert many <= few * RATIO


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as connection, closing(sqlite3.connect(target)) as copy:
        connection.backup(copy)


@pytest.fixture(scope="module")
def large_postgres(postgres_server: PostgresServer) -> Iterator[str]:
    """A database with statistics, as the server's own housekeeping would have made them."""
    url = postgres_server.create_database("large")
    _fill(url, 30_000)
    with connector_for(url, checkpoint=False).reader.connect() as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = off")
        connection.exec_driver_sql("ANALYZE")
    yield url
    postgres_server.drop_database("large")


@pytest.mark.needs_postgresql
async def test_postgresql_reads_no_table_as_a_whole(large_postgres: str) -> None:
    """Every statement on a table of many rows finds its rows by an index."""
    plans: dict[str, str] = {}
    for name, call in CALLS.items():
        statements = await _statements_of(large_postgres, call)
        with connector_for(large_postgres, checkpoint=False).writer.connect() as connection:
            for statement, parameters in statements:
                first = parameters[0] if isinstance(parameters, list) else parameters
                rows = connection.exec_driver_sql(f"EXPLAIN {statement}", first).scalars().all()
                plans[name] = plans.get(name, "") + "\n".join(rows)
    assert plans.keys() == CALLS.keys()
    assert {name: plan for name, plan in plans.items() if "Seq Scan" in plan or "Index" not in plan} == {}
