"""What every database promises about how much is kept of runs, and for how long of versions of workflows."""

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import psycopg
import pytest
import sqlalchemy as sa

from sandgate.core.artifact import make_artifact_id
from sandgate.core.ids import RunId, UserId, WorkflowId, make_delivery_id, make_user_id
from sandgate.core.run import Run, RunStatus, StepStatus
from sandgate.core.trigger import Delivery, DeliveryStatus
from sandgate.core.workflow import Workflow
from sandgate.store import kept_runs
from sandgate.store.base import DeliveryKeys, RunChange, VersionGone
from sandgate.store.connections import Location
from sandgate.store.database import Database
from sandgate.store.revisions import ensure_schema, run_migrations
from sandgate.store.schema import run_sizes, superseded_versions, workflows
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, a_run, a_schedule, a_step, a_workflow, an_event
from tests.contract.store.test_data import an_artifact
from tests.contract.store.test_schema import _connected
from tests.contract.store.test_webhooks import a_webhook

LATER = NOW + timedelta(seconds=60)


async def _workflow(store: SqlStore, owner_id: UserId | None = None) -> Workflow:
    workflow = a_workflow(owner_id=owner_id or make_user_id())
    await store.workflows.insert(workflow)
    return workflow


async def _begin(store: SqlStore, workflow: Workflow) -> Run:
    run = a_run(workflow.workflow_id, owner_id=workflow.owner_id, workflow_version=workflow.version)
    assert await store.runs.insert(RunChange(run))
    return run


async def _end(store: SqlStore, run: Run, printed: int = 0, at: datetime = LATER) -> Run:
    over = replace(run, status=RunStatus.FAILED, finished_at=at)
    steps = [a_step(run, stdout="x" * printed, stderr="", outputs=None, error=None)]
    assert await store.runs.apply(RunChange(over, steps))
    return over


async def _replace(store: SqlStore, workflow: Workflow, *, size: int = 0) -> Workflow:
    definition = {"name": "next", "steps": [], "description": "x" * size}
    following = replace(workflow, version=workflow.version + 1, definition=definition)
    assert await store.workflows.replace(following)
    return following


async def _versions(store: SqlStore, workflow_id: WorkflowId) -> list[int]:
    return [n for n in range(1, 9) if await store.workflows.find_definition(workflow_id, n) is not None]


# Versions


async def test_a_version_stays_for_its_runs(store: SqlStore) -> None:
    """Of those that are not the newest only what runs need is kept; the rest goes with the next, or the next look."""
    first = await _workflow(store)
    workflow_id = first.workflow_id
    second = await _replace(store, first)
    assert await _versions(store, workflow_id) == [2]
    run = await _begin(store, second)
    fourth = await _replace(store, await _replace(store, second))
    assert await _versions(store, workflow_id) == [2, 4]
    await _end(store, run)
    assert await store.retention.prune_versions(10) == 0
    assert await store.retention.prune_runs(LATER + timedelta(seconds=1), 10) == 1
    assert await store.retention.prune_versions(10) == 1
    assert await store.retention.prune_versions(10) == 0
    assert await _versions(store, workflow_id) == [4]
    assert await store.workflows.find(workflow_id) == fourth


async def test_a_deleted_workflow_stays_for_its_runs(store: SqlStore, database: Database) -> None:
    """One that was never started leaves nothing at all behind."""
    unused, used = await _workflow(store), await _workflow(store)
    run = await _end(store, await _begin(store, used))
    for workflow in (unused, used):
        assert await store.workflows.delete(workflow.workflow_id, NOW)
        assert await store.workflows.delete(workflow.workflow_id, NOW) is None
    left = await database.read(
        lambda connection: connection.execute(sa.select(workflows.c.workflow_id)).scalars().all()
    )
    assert left == [used.workflow_id]
    assert await _versions(store, unused.workflow_id) == []
    assert await store.workflows.find_definition(used.workflow_id, run.workflow_version) == used.definition


async def test_nothing_runs_that_has_no_version(store: SqlStore) -> None:
    """Who begins a run of a version that another has taken the place of is told so, and nothing is written."""
    workflow = await _workflow(store)
    schedule = a_schedule(workflow.workflow_id)
    assert await store.schedules.insert(schedule, 10)
    webhook = a_webhook(workflow.workflow_id)
    assert await store.webhooks.insert(webhook, 10)
    await _replace(store, workflow)
    run = a_run(workflow.workflow_id)
    delivery = Delivery(make_delivery_id(), webhook.webhook_id, NOW, DeliveryStatus.ACCEPTED, 1, "text/plain")
    for writing in (
        store.webhooks.accept(delivery, DeliveryKeys(b"k", None), RunChange(run), fresh_after=NOW),
        store.runs.insert(RunChange(run)),
        store.schedules.fire(schedule, replace(schedule, last_run_id=run.run_id), RunChange(run)),
    ):
        with pytest.raises(VersionGone):
            await writing
    assert await store.webhooks.list_deliveries(webhook.webhook_id) == []
    assert await store.schedules.find(schedule.schedule_id) == schedule
    assert await store.runs.find(run.run_id) is None


async def test_a_run_that_was_begun_has_its_version(store: SqlStore) -> None:
    """However many begin while versions follow one another, and old ones are looked for."""
    workflow = await _workflow(store)
    workflow_id = workflow.workflow_id
    begun: list[Run] = []

    async def begin() -> None:
        # Whoever is always too late begins when versions have ceased to follow one another.
        while len(begun) < 20:
            found = await store.workflows.find(workflow_id)
            assert found is not None
            run = a_run(workflow_id, workflow_version=found.version)
            with suppress(VersionGone):
                assert await store.runs.insert(RunChange(run))
                begun.append(run)

    async def change() -> None:
        for _ in range(20):
            found = await store.workflows.find(workflow_id)
            assert found is not None
            await store.workflows.replace(replace(found, version=found.version + 1))
            await store.retention.prune_versions(10)

    await asyncio.gather(begin(), begin(), change())
    for run in begun:
        assert await store.workflows.find_definition(workflow_id, run.workflow_version) is not None


# Bytes


async def test_the_oldest_ended_runs_go_where_too_much_is_kept(store: SqlStore) -> None:
    """Of each owner by itself, with all that belongs to them; never what is live, or lives again."""
    ann, bob = make_user_id(), make_user_id()
    of_ann, of_bob = await _workflow(store, ann), await _workflow(store, bob)
    live = await _begin(store, of_ann)
    made = [await _end(store, await _begin(store, of_ann), 10_000) for _ in range(6)]
    again = replace(made[0], status=RunStatus.RUNNING, finished_at=None, fence=2)
    assert await store.runs.reopen(RunChange(again, history=[an_event(again, 0)]), 60)
    other = await _end(store, await _begin(store, of_bob), 10_000)
    over = dict(await store.retention.find_over(25_000))
    assert set(over) == {ann}
    assert 5 * 10_000 < over[ann] + 25_000 < 5 * 11_500
    assert await store.retention.prune_oldest_runs(ann, over[ann], 2) == 2
    assert await store.retention.prune_oldest_runs(ann, dict(await store.retention.find_over(25_000))[ann], 500) == 1
    assert await store.retention.find_over(25_000) == []
    assert [run for run in made if await store.runs.find(run.run_id)] == [made[0], *made[4:]]
    assert await store.runs.list_steps(made[1].run_id) == []
    assert await store.runs.find(live.run_id) == live
    assert await store.runs.find(other.run_id) == other
    # It counts again once it has ended again.
    taken = await store.runs.find(again.run_id)
    assert taken is not None
    await _end(store, taken, 10_000)
    assert dict(await store.retention.find_over(25_000)).keys() == {ann}


async def test_what_one_look_removes_is_bounded(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no write waits for long behind it."""
    monkeypatch.setattr(kept_runs, "_DELETED_BYTES", 15_000)
    workflow = await _workflow(store)
    for _ in range(4):
        await _end(store, await _begin(store, workflow), 10_000)
    assert await store.retention.prune_oldest_runs(workflow.owner_id, 10**9, 500) == 2


async def test_versions_that_only_runs_need_count(store: SqlStore) -> None:
    """The newest one does not, as long as its workflow is there."""
    workflow = await _replace(store, await _workflow(store), size=20_000)
    await _end(store, await _begin(store, workflow))
    assert await store.retention.find_over(20_000) == []
    last = await _replace(store, workflow)
    ((owner_id, excess_bytes),) = await store.retention.find_over(20_000)
    assert owner_id == workflow.owner_id
    assert 0 < excess_bytes < 2000
    assert await store.retention.prune_oldest_runs(owner_id, excess_bytes, 10) == 1
    assert await store.retention.prune_versions(10) == 1
    assert await store.retention.find_over(1) == []
    assert await store.workflows.find(workflow.workflow_id) == last


async def test_a_run_is_measured_to_the_byte(store: SqlStore, database: Database) -> None:
    """Whatever its characters; also one that has ended in the moment in which it began, and was written twice."""
    workflow = await _workflow(store)
    run = a_run(workflow.workflow_id, status=RunStatus.SUCCEEDED, finished_at=NOW)
    step = a_step(run, status=StepStatus.SUCCEEDED, stdout="\u00e9\0", stderr="e", error=None)
    for _time in range(2):
        assert await store.runs.insert(RunChange(run, [step], [an_event(run, 0, details={"a": "b"})]))
    sizes = await database.read(lambda connection: connection.execute(sa.select(run_sizes)).all())
    facts = [run.inputs, run.outputs, step.outputs]
    texts = sum(len(json.dumps(fact, separators=(",", ":"))) for fact in facts if fact is not None)
    error = 0 if run.error is None else len(
        json.dumps({"name": run.error.name, "value": run.error.value, "traceback": run.error.traceback},
                   separators=(",", ":"))
    )  # fmt: skip
    assert [tuple(row) for row in sizes] == [(run.run_id, run.owner_id, 3 * 128 + texts + error + 4 + len('{"a":"b"}'))]


async def test_what_was_there_before_is_measured_when_it_is_migrated(empty_location: Location) -> None:
    """As it would have been when it ended."""
    store = SqlStore(empty_location)
    await store.open()
    workflow = await _workflow(store)
    await _end(store, await _begin(store, workflow), 500)
    await _begin(store, workflow)
    await _replace(store, workflow)
    deleted = await _workflow(store)
    await _end(store, await _begin(store, deleted))
    assert await store.workflows.delete(deleted.workflow_id, NOW)
    await store.close()
    with _connected(empty_location) as connection:
        wanted = [connection.execute(sa.select(table)).all() for table in (run_sizes, superseded_versions)]
        connection.rollback()
        with connection.begin():
            for text in ("DROP TABLE run_sizes", "DROP TABLE superseded_versions", "DROP INDEX runs_by_version",
                         "ALTER TABLE runs DROP COLUMN templates",
                         "UPDATE alembic_version SET version_num = '0018'"):  # fmt: skip
                connection.exec_driver_sql(text)
            run_migrations(connection)
        ensure_schema(connection, migrate=False)
        found = [connection.execute(sa.select(table)).all() for table in (run_sizes, superseded_versions)]
    assert list(map(sorted, found)) == list(map(sorted, wanted))
    assert [len(rows) for rows in found] == [2, 2]


async def test_the_oldest_artifacts_go_where_too_much_is_kept(store: SqlStore) -> None:
    """Pack by pack, those of runs that have ended; each owner has room of its own."""
    workflow, other = await _workflow(store), await _workflow(store)
    packs: dict[RunId, list[str]] = {}
    for each in (workflow, workflow, workflow, other):
        run = await _begin(store, each)
        packs[run.run_id] = [f"pack-{n}" for n in range(2)]
        kept = [
            an_artifact(run, artifact_id=make_artifact_id(), pack=pack, size_bytes=50)
            for pack in packs[run.run_id]
            for _ in range(2)
        ]
        assert await store.runs.apply(RunChange(run, artifacts=kept))
        if len(packs) != 2:
            await _end(store, run)
    first, live, last, _ = packs
    over = await store.artifacts.find_over(399)
    assert over == [(workflow.owner_id, 201)]
    assert [(p.run_id, p.name) for p in await store.artifacts.prune_oldest(workflow.owner_id, 201, 2)] == [
        (first, "pack-0"), (first, "pack-1")
    ]  # fmt: skip
    assert await store.artifacts.find_over(399) == [(workflow.owner_id, 1)]
    assert [(p.run_id, p.name) for p in await store.artifacts.prune_oldest(workflow.owner_id, 1, 9)] == [
        (last, "pack-0")
    ]
    assert await store.artifacts.find_over(399) == []
    assert [(await store.artifacts.measure(run_id)).size_bytes for run_id in packs] == [0, 200, 100, 200]
    assert live in packs


async def test_only_owners_with_news_are_looked_at(store: SqlStore) -> None:
    """Of whom a run has ended since, or has left something; what they have of before counts all the same."""
    sleeper, ender, leaver = [await _workflow(store) for _ in range(3)]
    young = LATER + timedelta(seconds=10)
    for workflow in (sleeper, ender, leaver):
        run = await _begin(store, workflow)
        assert await store.runs.apply(RunChange(run, artifacts=[an_artifact(run, size_bytes=500)]))
        await _end(store, run, 10_000)
    run = await _end(store, await _begin(store, ender), at=young)
    live = await _begin(store, leaver)
    artifact = an_artifact(live, artifact_id=make_artifact_id(), size_bytes=1, created_at=young)
    assert await store.runs.apply(RunChange(live, artifacts=[artifact]))
    everybody = {sleeper.owner_id, ender.owner_id, leaver.owner_id}
    assert dict(await store.retention.find_over(10_000)).keys() == everybody
    assert dict(await store.retention.find_over(10_000, LATER)).keys() == everybody
    ((owner_id, excess_bytes),) = await store.retention.find_over(10_000, young)
    assert (owner_id, excess_bytes) == (ender.owner_id, dict(await store.retention.find_over(10_000))[ender.owner_id])
    assert dict(await store.artifacts.find_over(499)).keys() == everybody
    assert dict(await store.artifacts.find_over(499, young)) == {ender.owner_id: 1, leaver.owner_id: 2}
    assert await store.retention.find_over(1, young + timedelta(seconds=1)) == []
    assert await store.artifacts.find_over(1, young + timedelta(seconds=1)) == []


@pytest.mark.needs_postgresql
async def test_what_a_run_left_stays_that_is_being_opened_again(clean_postgres_url: str) -> None:
    """Another server is at it, and it will go on; that of the next oldest goes in its place."""
    store = SqlStore(clean_postgres_url)
    await store.open()
    workflow = await _workflow(store)
    made = [await _begin(store, workflow) for _ in range(2)]
    for run in made:
        assert await store.runs.apply(RunChange(run, artifacts=[an_artifact(run, artifact_id=make_artifact_id())]))
        await _end(store, run)
    with psycopg.connect(clean_postgres_url) as other:
        other.execute("SELECT 1 FROM runs WHERE run_id = %s FOR UPDATE", (made[0].run_id,))
        (pack,) = await store.artifacts.prune_oldest(workflow.owner_id, 1, 10)
        assert pack.run_id == made[1].run_id
    (pack,) = await store.artifacts.prune_oldest(workflow.owner_id, 1, 10)
    assert pack.run_id == made[0].run_id
    await store.close()
