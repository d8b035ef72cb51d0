"""What every database promises about workflows and runs."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

from sandgate.core.ids import RunId, UserId, first_id_at, make_run_id, make_workflow_id
from sandgate.core.page import PageRequest
from sandgate.core.run import LIVE_RUN_STATUSES, Run, RunStatus, SignalKind, StepStatus
from sandgate.core.workflow import Workflow
from sandgate.store.base import RunChange, RunFilter
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, OTHER, OWNER, a_last_word, a_run, a_step, a_user, a_workflow, an_event

LATER = NOW + timedelta(seconds=60)


async def _workflow(store: SqlStore) -> Workflow:
    workflow = a_workflow()
    await store.workflows.insert(workflow)
    return workflow


async def _run(store: SqlStore, workflow: Workflow | None = None) -> Run:
    run = a_run((workflow or await _workflow(store)).workflow_id)
    assert await store.runs.insert(RunChange(run))
    return run


def _ended(run: Run) -> Run:
    return replace(run, status=RunStatus.SUCCEEDED, finished_at=LATER)


async def test_a_workflow_comes_back_as_it_was(store: SqlStore) -> None:
    """Every field, whatever its characters; an unknown one is None."""
    workflow = await _workflow(store)
    assert await store.workflows.find(workflow.workflow_id) == workflow
    assert await store.workflows.find_definition(workflow.workflow_id, 1) == workflow.definition
    assert await store.workflows.find(make_workflow_id()) is None
    assert await store.workflows.find_definition(workflow.workflow_id, 2) is None


async def test_an_owner_has_so_many_workflows(store: SqlStore) -> None:
    """However many are made at once; deleted ones and those of others do not count, and nothing is written beyond."""
    user = a_user()
    await store.users.insert(user)
    made = [a_workflow(owner_id=user.user_id) for _ in range(8)]
    inserted = await asyncio.gather(*(store.workflows.insert(workflow, most=3) for workflow in made))
    assert sorted(inserted) == [False] * 5 + [True] * 3
    page = await store.workflows.list(user.user_id, None, PageRequest())
    assert {row.workflow_id for row in page.items} == {
        workflow.workflow_id for workflow, is_there in zip(made, inserted, strict=True) if is_there
    }
    assert await store.workflows.find_definition(made[inserted.index(False)].workflow_id, 1) is None
    assert await store.workflows.insert(a_workflow(owner_id=OTHER), most=3)
    assert await store.workflows.delete(page.items[0].workflow_id, NOW)
    assert await store.workflows.insert(a_workflow(owner_id=user.user_id), most=3)
    assert not await store.workflows.insert(a_workflow(owner_id=user.user_id), most=3)


async def test_versions_follow_one_another(store: SqlStore) -> None:
    """The next version takes the place of the one before, which stays for its run; of two writers one wins."""
    first = await _workflow(store)
    await _run(store, first)
    second = replace(first, version=2, name="new", definition={"name": "new"}, updated_at=LATER)
    assert await store.workflows.replace(second)
    assert not await store.workflows.replace(second)
    assert await store.workflows.find(first.workflow_id) == second
    assert await store.workflows.find_definition(first.workflow_id, 1) == first.definition


async def test_workflows_are_listed_by_owner_and_name(store: SqlStore) -> None:
    """Newest first, in pages; deleted ones are not."""
    made = [a_workflow(owner_id=owner, name=name) for owner in (OWNER, OTHER) for name in ("a", "b", "b")]
    for workflow in made:
        await store.workflows.insert(workflow)
    assert await store.workflows.delete(made[2].workflow_id, NOW)
    page = PageRequest()
    assert (await store.workflows.list(OWNER, None, page)).items == (made[1], made[0])
    assert (await store.workflows.list(None, "b", page)).items == (made[5], made[4], made[1])
    first = await store.workflows.list(None, None, PageRequest(limit=2))
    assert first.items == (made[5], made[4])
    assert (await store.workflows.list(None, None, PageRequest(2, first.next_before_id))).items == (made[3], made[1])


async def test_a_workflow_with_live_runs_is_kept(store: SqlStore) -> None:
    """Unless they are told; once it is deleted, no run of it begins, and its versions can still be read."""
    workflow = await _workflow(store)
    live, over = await _run(store, workflow), await _run(store, workflow)
    assert await store.runs.apply(RunChange(_ended(over)))
    workflow_id = workflow.workflow_id
    assert await store.workflows.delete(workflow_id, NOW) is False
    assert await store.workflows.delete(workflow_id, NOW, a_last_word) is True
    assert await store.workflows.delete(workflow_id, NOW, a_last_word) is None
    # A kill at this moment loses no cancel: the one write has told every run that lives.
    assert [(word.run_id, word.kind) for word in await store.signals.list_held("one")] == [
        (live.run_id, SignalKind.CANCEL)
    ]
    assert await store.workflows.find(workflow_id) is None
    assert await store.workflows.find_definition(workflow_id, 1) == workflow.definition
    assert not await store.runs.insert(RunChange(a_run(workflow_id)))


async def test_a_run_comes_back_as_it_was(store: SqlStore) -> None:
    """With its steps and its history, whatever their characters."""
    run = a_run((await _workflow(store)).workflow_id, events=2)
    steps = [a_step(run), a_step(run, step="b", items=2, outputs=None), a_step(run, step="b", item=0)]
    history = [an_event(run, 0), an_event(run, 1, item=3)]
    assert await store.runs.insert(RunChange(run, steps, history))
    assert await store.runs.find(run.run_id) == run
    assert await store.runs.list_steps(run.run_id) == steps
    bare = [replace(step, stdout="", stderr="") for step in steps]
    assert await store.runs.list_steps(run.run_id, with_output=False) == bare
    assert await store.runs.list_history(run.run_id) == history
    assert await store.runs.find(make_run_id()) is None


async def test_a_change_is_written_as_one(store: SqlStore) -> None:
    """The run, its steps and its history; a step that was there is replaced."""
    run = await _run(store)
    await store.runs.apply(RunChange(run, [a_step(run)]))
    done = a_step(run, status=StepStatus.SUCCEEDED, attempt=3, error=None)
    after = replace(run, status=RunStatus.WAITING, wake_at=LATER, cancel_asked_at=NOW, events=1)
    assert await store.runs.apply(RunChange(after, [done], [an_event(run, 0)]))
    assert await store.runs.find(run.run_id) == after
    assert await store.runs.list_steps(run.run_id) == [done]
    assert await store.runs.list_history(run.run_id) == [an_event(run, 0)]


async def test_who_lost_a_run_cannot_write(store: SqlStore) -> None:
    """Neither with an older fencing number nor under another name; and nobody writes to a run that has ended."""
    run = await _run(store)
    (taken,) = await store.runs.claim("two", LATER, 60, 10)
    assert (taken.fence, taken.lease_owner) == (2, "two")
    assert await store.runs.find(run.run_id) == taken
    for stale in (run, replace(taken, fence=1), replace(taken, lease_owner="one")):
        assert not await store.runs.apply(RunChange(_ended(stale), [a_step(run)], [an_event(run, 0)]))
    assert await store.runs.list_steps(run.run_id) == []
    assert await store.runs.list_history(run.run_id) == []
    assert await store.runs.apply(RunChange(_ended(taken)))
    assert not await store.runs.apply(RunChange(replace(taken, events=5)))
    assert await store.runs.find(run.run_id) == _ended(taken)


async def test_only_free_runs_are_claimed(store: SqlStore) -> None:
    """Those whose lease has run out, and one's own; none that has ended, and no more than asked for."""
    workflow = await _workflow(store)
    runs = [a_run(workflow.workflow_id) for _ in range(3)]
    for run in runs:
        assert await store.runs.insert(RunChange(run), lease_s=60)
    held = await store.runs.find(runs[0].run_id)
    assert held is not None
    assert await store.runs.apply(RunChange(_ended(held)))
    assert await store.runs.claim("two", NOW, 60, 10) == []
    mine = await store.runs.claim("one", NOW, 60, 1, own=True)
    assert [run.run_id for run in mine] == [runs[1].run_id]
    assert [run.fence for run in await store.runs.claim("one", NOW, 60, 10, own=True)] == [3, 2]
    await store.runs.release("two", [run.run_id for run in runs])
    assert await store.runs.claim("two", NOW, 60, 10) == []
    await store.runs.release("one", [run.run_id for run in runs])
    assert [run.run_id for run in await store.runs.claim("two", NOW, 60, 10)] == [r.run_id for r in runs[1:]]


async def test_leases_are_timed_by_the_clock_that_all_share(store: SqlStore) -> None:
    """Where several processes use a database, what a process thinks of the time decides nothing."""
    run = a_run((await _workflow(store)).workflow_id)
    assert await store.runs.insert(RunChange(run), lease_s=60)
    far_ahead = NOW + timedelta(days=10_000)
    free_in_s = await store.runs.find_free_in_s("two", far_ahead)
    assert free_in_s is not None
    assert (free_in_s > 0) == store.runs.is_shared
    assert (await store.runs.claim("two", far_ahead, 60, 10) == []) == store.runs.is_shared
    assert await store.runs.find_free_in_s("one" if store.runs.is_shared else "two", NOW) is None


async def test_renewing_tells_what_is_still_held(store: SqlStore) -> None:
    """A run that was taken by another process is not among it."""
    kept, lost = await _run(store), await _run(store)
    await store.runs.claim("two", LATER, -1, 10)
    assert [run.run_id for run in await store.runs.claim("one", LATER, 60, 1)] == [kept.run_id]
    assert await store.runs.renew("one", LATER, 60) == {kept.run_id}
    assert lost.run_id in await store.runs.renew("two", LATER, 60)


async def test_an_ended_run_is_opened_again_once(store: SqlStore) -> None:
    """By one of those who try, with the next fencing number and a lease; not while it is live, nor without workflow."""
    workflow = await _workflow(store)
    run = await _run(store, workflow)
    again = replace(run, fence=2, lease_owner="two", finished_at=None, status=RunStatus.RUNNING, events=1)
    change = RunChange(again, [a_step(run)], [an_event(run, 0)])
    assert not await store.runs.reopen(change, 60)
    assert await store.runs.apply(RunChange(_ended(run)))
    assert await store.runs.reopen(change, 60)
    assert not await store.runs.reopen(change, 60)
    found = await store.runs.find(run.run_id)
    assert found is not None
    assert (found.fence, found.lease_owner, found.finished_at, found.events) == (2, "two", None, 1)
    assert not await store.runs.apply(RunChange(run))
    assert await store.runs.apply(RunChange(_ended(found)))
    assert await store.workflows.delete(workflow.workflow_id, NOW)
    assert not await store.runs.reopen(RunChange(replace(again, fence=3), (), [an_event(run, 1)]), 60)


async def test_history_is_read_in_parts(store: SqlStore) -> None:
    """From any number on; and one row of a step by its name and item."""
    run = a_run((await _workflow(store)).workflow_id, events=4)
    history = [an_event(run, number) for number in range(4)]
    steps = [a_step(run, step="b", items=1), a_step(run, step="b", item=0, attempts_before=1)]
    assert await store.runs.insert(RunChange(run, steps, history))
    assert await store.runs.list_history(run.run_id, 1, 2) == history[1:3]
    assert await store.runs.list_history(run.run_id, 3) == history[3:]
    assert await store.runs.list_history(run.run_id, 4, 1) == []
    assert [await store.runs.find_step(run.run_id, "b", item) for item in (None, 0, 1)] == [*steps, None]


async def test_the_beginning_of_an_attempt_is_found(store: SqlStore) -> None:
    """Of a step, and of an item."""
    run = a_run((await _workflow(store)).workflow_id)
    history = [
        an_event(run, 0, kind="step_started", attempt=1),
        an_event(run, 1, attempt=1),
        an_event(run, 2, kind="step_started", attempt=1, item=0),
        an_event(run, 3, kind="step_started", attempt=2),
    ]
    assert await store.runs.insert(RunChange(run, (), history))
    wanted = [(None, 1), (0, 1), (None, 2), (1, 1), (None, 3)]
    found = [await store.runs.find_beginning(run.run_id, "a", item, attempt) for item, attempt in wanted]
    assert found == [0, 2, 3, None, None]


async def test_runs_are_listed_by_owner_workflow_and_status(store: SqlStore) -> None:
    """Newest first, each filter alone and together."""
    workflow, other = await _workflow(store), await _workflow(store)
    runs = [await _run(store, workflow), await _run(store, other), await _run(store, workflow)]
    ended = _ended(runs[2])
    await store.runs.apply(RunChange(ended))
    page = PageRequest()

    async def listed(**wanted: object) -> list[Run]:
        return list((await store.runs.list(RunFilter(**wanted), page)).items)  # type: ignore[arg-type]

    assert await listed() == [ended, runs[1], runs[0]]
    assert await listed(owner_id=UserId("user-nobody")) == []
    assert await listed(workflow_id=workflow.workflow_id) == [ended, runs[0]]
    succeeded = frozenset({RunStatus.SUCCEEDED})
    assert await listed(owner_id=OWNER, statuses=succeeded, workflow_id=workflow.workflow_id) == [ended]
    assert await listed(statuses=LIVE_RUN_STATUSES) == [runs[1], runs[0]]
    assert await listed(statuses=succeeded | LIVE_RUN_STATUSES, workflow_name="report") == [ended, runs[1], runs[0]]
    assert await listed(workflow_name="other") == []
    assert await store.runs.find_newest(workflow.workflow_id) == ended
    assert await store.runs.find_newest(make_workflow_id()) is None
    assert await store.runs.list_live(workflow.workflow_id) == [runs[0].run_id]


async def test_runs_are_listed_by_when_they_were_made(store: SqlStore) -> None:
    """From one time on, and up to another, which is no longer part of it."""
    workflow = await _workflow(store)
    times = [NOW + timedelta(days=day) for day in range(3)]
    runs = [
        a_run(workflow.workflow_id, run_id=RunId(first_id_at("run", at + timedelta(minutes=5))), created_at=at)
        for at in times
    ]
    for run in runs:
        assert await store.runs.insert(RunChange(run))

    async def listed(after: datetime | None, before: datetime | None) -> list[Run]:
        wanted = RunFilter(created_after=after, created_before=before)
        return list((await store.runs.list(wanted, PageRequest())).items)

    assert await listed(times[1], None) == runs[:0:-1]
    assert await listed(None, times[1]) == runs[:1]
    assert await listed(times[0], times[2]) == runs[1::-1]
