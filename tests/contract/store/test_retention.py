"""What every database promises about the removal of old rows."""

from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from sandgate.core.run import Run, RunStatus
from sandgate.core.states import LIVE_ENVIRONMENT_STATUSES, EnvironmentStatus
from sandgate.core.workflow import Workflow
from sandgate.store.base import RunChange
from sandgate.store.database import Database
from sandgate.store.retention import OF_A_RUN, OF_A_WORKFLOW
from sandgate.store.schema import run_history, run_steps, runs, workflow_versions, workflows
from sandgate.store.sql_store import SqlStore
from sandgate.store.trigger_schema import metadata, schedules, webhook_keys, webhooks
from tests.contract.store.records import (
    NOW,
    a_run,
    a_running_execution,
    a_step,
    a_workflow,
    an_environment,
    an_event,
    ended,
)

LATER = NOW + timedelta(seconds=60)


async def _ended_run(store: SqlStore, workflow: Workflow, seconds: float) -> Run:
    run = a_run(workflow.workflow_id)
    assert await store.runs.insert(RunChange(run, [a_step(run)], [an_event(run, 0)]))
    over = replace(run, status=RunStatus.FAILED, finished_at=NOW + timedelta(seconds=seconds))
    assert await store.runs.apply(RunChange(over))
    return over


async def _counts(database: Database, *tables: sa.Table) -> list[int]:
    def count(connection: Connection) -> list[int]:
        return [connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in tables]

    return await database.read(count)


async def test_old_runs_go_with_all_that_belongs_to_them(store: SqlStore, database: Database) -> None:
    """Oldest first and no more than asked for; what is live, or ended later, stays whole."""
    workflow = a_workflow()
    await store.workflows.insert(workflow)
    old = [await _ended_run(store, workflow, seconds) for seconds in (1, 0, 2)]
    kept = await _ended_run(store, workflow, 60)
    live = a_run(workflow.workflow_id)
    assert await store.runs.insert(RunChange(live, [a_step(live)], [an_event(live, 0)]))
    assert await store.retention.prune_runs(LATER, 2) == 2
    assert [await store.runs.find(run.run_id) for run in old] == [None, None, old[2]]
    assert await store.retention.prune_runs(LATER, 2) == 1
    assert await store.retention.prune_runs(LATER, 2) == 0
    assert await _counts(database, runs, run_steps, run_history) == [2, 2, 2]
    assert await store.runs.find(kept.run_id) == kept


def test_what_names_a_run_or_a_workflow_goes_with_it() -> None:
    """No table is forgotten: the keys of deliveries outlive their runs, and triggers go when a workflow is deleted."""
    naming_runs = {table for table in metadata.tables.values() if "run_id" in table.c}
    assert naming_runs - {*OF_A_RUN} == {webhook_keys}
    naming_workflows = {table for table in metadata.tables.values() if "workflow_id" in table.c}
    assert naming_workflows - {*OF_A_WORKFLOW} == {runs, schedules, webhooks}


async def test_deleted_workflows_go_after_their_runs(store: SqlStore, database: Database) -> None:
    """With all versions, once no run needs one."""
    workflow, living = a_workflow(), a_workflow()
    for each in (workflow, living):
        await store.workflows.insert(each)
    await _ended_run(store, workflow, 0)
    assert await store.workflows.delete(workflow.workflow_id, NOW)
    assert await store.retention.prune_workflows(LATER, 10) == 0
    assert await store.retention.prune_runs(LATER, 10) == 1
    assert await store.retention.prune_workflows(NOW, 10) == 0
    assert await store.retention.prune_workflows(LATER, 10) == 1
    assert await _counts(database, workflows, workflow_versions) == [1, 1]
    assert await store.workflows.find(living.workflow_id) == living


async def test_ended_environments_go_after_their_executions(store: SqlStore) -> None:
    """Deleted or not; a live one stays."""
    gone, needed, live = an_environment(), an_environment(), an_environment()
    for environment in (gone, needed, live):
        await store.environments.insert(environment)
    execution = a_running_execution(environment_id=needed.environment_id)
    await store.executions.finish(ended(execution))
    for environment in (gone, needed):
        target = EnvironmentStatus.TERMINATED
        assert await store.environments.transition(
            environment.environment_id, target, expected=LIVE_ENVIRONMENT_STATUSES, at=NOW, deleted=True
        )
    assert await store.retention.prune_environments(NOW, 10) == 0
    assert await store.retention.prune_environments(LATER, 10) == 1
    assert await store.executions.prune(LATER, 10) == 1
    assert await store.retention.prune_environments(LATER, 10) == 1
    assert await store.environments.find(needed.environment_id) is None
    assert await store.environments.find(live.environment_id) == live
