"""What every database promises about runs that take turns, and about runs that are started by runs."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sandgate.core.ids import WorkflowId
from sandgate.core.run import Run, RunStatus
from sandgate.store.base import RunChange
from sandgate.store.connections import Location
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, OTHER, OWNER, a_run, a_step, a_workflow

LATER = NOW + timedelta(seconds=60)


async def _workflow(store: SqlStore) -> WorkflowId:
    workflow = a_workflow()
    await store.workflows.insert(workflow)
    return workflow.workflow_id


async def _waiting(store: SqlStore, workflow_id: WorkflowId, **changes: Any) -> Run:
    facts: dict[str, Any] = {"slot_group": "g", "slot_limit": 2, **changes}
    run = a_run(workflow_id, status=RunStatus.PENDING, started_at=None, deadline_at=None, **facts)
    assert await store.runs.insert(RunChange(run))
    return run


async def test_no_more_runs_enter_than_there_are_slots(store: SqlStore) -> None:
    """In the order of their creation; one more when one has ended. Asking again changes nothing."""
    workflow_id = await _workflow(store)
    runs = [await _waiting(store, workflow_id) for _ in range(4)]
    assert [await store.runs.enter(run, NOW) for run in reversed(runs)] == [None, None, NOW, NOW]
    assert await store.runs.enter(runs[0], LATER) == NOW
    first = await store.runs.find(runs[0].run_id)
    assert first == replace(runs[0], started_at=NOW)
    assert await store.runs.apply(RunChange(replace(first, status=RunStatus.SUCCEEDED, finished_at=LATER)))
    assert await store.runs.enter(runs[3], LATER) is None
    assert await store.runs.enter(runs[2], LATER) == LATER
    assert await store.runs.enter(runs[3], LATER) is None


async def test_groups_and_owners_do_not_share_slots(store: SqlStore) -> None:
    """The same word of another owner is another group."""
    workflow_id = await _workflow(store)
    kinds = [{"slot_group": "g"}, {"slot_group": "h"}, {"slot_group": "g", "owner_id": OTHER}]
    runs = [await _waiting(store, workflow_id, slot_limit=1, **kind) for kind in kinds for _ in range(2)]
    assert [await store.runs.enter(run, NOW) for run in runs] == [NOW, None] * 3


async def test_a_run_that_ended_while_it_waited_holds_nobody_up(store: SqlStore) -> None:
    """A cancelled run takes no slot, and cannot be let in any more."""
    workflow_id = await _workflow(store)
    first, second = [await _waiting(store, workflow_id, slot_limit=1) for _ in range(2)]
    assert await store.runs.apply(RunChange(replace(first, status=RunStatus.CANCELLED, finished_at=NOW)))
    assert await store.runs.enter(first, NOW) is None
    assert await store.runs.enter(second, NOW) == NOW


async def test_only_who_holds_a_run_lets_it_in(store: SqlStore) -> None:
    """After another process has taken it over, the word of the one before does not count."""
    run = await _waiting(store, await _workflow(store))
    (taken,) = await store.runs.claim("two", LATER, 60, 10)
    assert await store.runs.enter(run, NOW) is None
    assert await store.runs.enter(taken, NOW) == NOW


async def test_two_processes_at_once_never_exceed_the_limit(store: SqlStore, location: Location) -> None:
    """Each asks for all of the runs at the same time."""
    other = SqlStore(location, checkpoint=False)
    await other.open()
    try:
        workflow_id = await _workflow(store)
        runs = [await _waiting(store, workflow_id, slot_limit=3) for _ in range(20)]
        asked = [each.runs.enter(run, NOW) for run in runs for each in (store, other)]
        answers = await asyncio.gather(*asked)
    finally:
        await other.close()
    rows = [await store.runs.find(run.run_id) for run in runs]
    entered = [row.run_id for row in rows if row is not None and row.started_at is not None]
    assert entered == [run.run_id for run in runs[: len(entered)]]
    assert len(entered) == 3
    assert answers[0] == NOW


async def test_a_child_is_added_once_and_only_by_who_holds_its_parent(store: SqlStore) -> None:
    """Adding it again changes nothing; a process that has lost the parent adds none."""
    workflow_id = await _workflow(store)
    parent = a_run(workflow_id)
    assert await store.runs.insert(RunChange(parent))
    child = a_run(workflow_id, parent_run_id=parent.run_id, owner_id=OWNER)
    assert await store.runs.insert(RunChange(child, [a_step(child)]), under=parent)
    assert await store.runs.insert(RunChange(child, [a_step(child, attempt=7)]), under=parent)
    assert await store.runs.list_steps(child.run_id) == [a_step(child)]
    (taken, taken_child) = await store.runs.claim("two", LATER, 60, 10)
    late = a_run(workflow_id, parent_run_id=parent.run_id)
    assert not await store.runs.insert(RunChange(late), under=parent)
    assert await store.runs.find(late.run_id) is None
    assert not await store.runs.insert(RunChange(child), under=taken)
    assert await store.runs.find(child.run_id) == taken_child
