"""What the orchestrator asks of the database costs the same however many runs there were."""

import shutil
from pathlib import Path

import pytest

from sandgate.core.ids import RunId, WorkflowId
from sandgate.core.page import PageRequest
from sandgate.core.run import RunStatus
from sandgate.store.base import RunFilter
from sandgate.store.connections import connector_for
from sandgate.store.revisions import migrate
from tests.contract.store.records import NOW, OWNER
from tests.contract.store.test_scale import FEW, MANY, RATIO, Call, _instructions, _statements_of

_NUMBERS = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows})"
_ID = "substr(CAST(1000000000000 + n AS TEXT), 2)"
# The live ones are the oldest; every hundredth run is of another workflow.
FILLING = (
    f"""INSERT INTO runs (run_id, workflow_id, owner_id, workflow_name, workflow_version, status, created_at,
                          started_at, finished_at, events, fence, lease_owner, lease_until, inputs) {_NUMBERS}
        SELECT 'run-' || {_ID}, CASE WHEN n % 100 = 0 THEN 'workflow-2' ELSE 'workflow-1' END, '{OWNER}', 'w', 1,
               CASE WHEN n <= 60 THEN 'waiting' WHEN n % 3 = 0 THEN 'failed' ELSE 'succeeded' END, n, n,
               CASE WHEN n > 60 THEN n END, 2, 1, 'one', n, '{{{{}}}}'
          FROM numbers""",
    f"""INSERT INTO run_steps (run_id, step, item, status, attempt, losses, stdout, stderr) {_NUMBERS}
        SELECT 'run-' || {_ID}, 'a', -1, 'succeeded', 1, 0, X'', X'' FROM numbers""",
    f"""INSERT INTO run_history (run_id, number, at, kind, details) {_NUMBERS}
        SELECT 'run-' || {_ID}, 0, n, 'step_started', '{{{{}}}}' FROM numbers""",
)
PAGE = PageRequest()
WORKFLOW, RUN = WorkflowId("workflow-1"), RunId("run-000000000700")
CALLS: dict[str, Call] = {
    "run": lambda store: store.runs.find(RUN),
    "newest run of a workflow": lambda store: store.runs.find_newest(WORKFLOW),
    "live runs of a workflow": lambda store: store.runs.list_live(WORKFLOW),
    "steps of a run": lambda store: store.runs.list_steps(RUN),
    "history of a run": lambda store: store.runs.list_history(RUN),
    "runs": lambda store: store.runs.list(RunFilter(), PAGE),
    "runs of an owner": lambda store: store.runs.list(RunFilter(owner_id=OWNER), PAGE),
    "runs of a workflow": lambda store: store.runs.list(RunFilter(workflow_id=WORKFLOW), PAGE),
    "runs that wait": lambda store: store.runs.list(RunFilter(statuses=frozenset({RunStatus.WAITING})), PAGE),
    "runs of an owner that wait": lambda store: store.runs.list(
        RunFilter(owner_id=OWNER, statuses=frozenset({RunStatus.WAITING})), PAGE
    ),
    "leases that have run out": lambda store: store.runs.find_free_in_s("two", NOW),
    "renewing": lambda store: store.runs.renew("one", NOW, 10.0),
    "claiming": lambda store: store.runs.claim("two", NOW, 10.0, 100),
    "claiming at the start": lambda store: store.runs.claim("one", NOW, 10.0, 100, own=True),
}


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A small and a large database."""
    folder = tmp_path_factory.mktemp("run-scale")
    paths = {rows: folder / f"{rows}.db" for rows in (FEW, MANY)}
    for rows, path in paths.items():
        migrate(path)
        with connector_for(path, checkpoint=False).writer.begin() as connection:
            for statement in FILLING:
                connection.exec_driver_sql(statement.format(rows=rows))
    return paths


@pytest.mark.parametrize("name", CALLS)
async def test_a_hundred_times_the_runs_cost_no_more(sizes: dict[int, Path], name: str) -> None:
    """Counted in instructions of SQLite's machine."""
    asked = Path(shutil.copy(sizes[FEW], sizes[FEW].with_name("asked.db")))
    statements = await _statements_of(asked, CALLS[name])
    few, many = (_instructions(sizes[rows], statements) for rows in (FEW, MANY))
    assert few > 0
    assert many <= few * RATIO
