"""Runs that are started by steps of runs."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sandgate.config.settings import Settings
from sandgate.core.ids import RunId
from sandgate.core.page import PageRequest
from sandgate.core.run import Run, RunStatus, StepStatus
from sandgate.store.base import RunFilter
from sandgate.store.sql_store import SqlStore
from tests.unit.workflows.conftest import World, child, code, make_principal

SLEEPS = "import time\ntime.sleep(60)"


async def _child_of(world: World, run: Run, step: str = "child", item: int | None = None) -> Run:
    row = await world.until_step(run, step, StepStatus.WAITING, item)
    async with asyncio.timeout(30):
        while True:
            found = await world.store.runs.find(RunId(str(row.child_run_id)))
            if found is not None:
                return found


async def test_a_child_gets_inputs_and_gives_outputs(world: World) -> None:
    """What the run below leaves are the outputs of the step, and it says where it comes from."""
    below = await world.create(
        code("double", "outputs['n'] = inputs['x']", inputs={"x": "${{ inputs.x }}"}),
        inputs={"x": {"type": "integer"}},
        outputs={"n": "${{ steps.double.outputs.n }}", "who": "${{ run.id }}"},
    )
    run = await world.run(
        child("child", below, {"x": "${{ item }}"}, foreach=[1, 2, 3]),
        outputs={"all": "${{ steps.child.outputs.n }}"},
    )
    assert (run.status, run.outputs) == (RunStatus.SUCCEEDED, {"all": [1, 2, 3]})
    row = await world.step(run, "child", 2)
    found = await world.find(row.child_run_id)
    assert row.outputs == {"n": 3, "who": found.run_id}
    assert (found.parent_run_id, found.parent_step, found.depth) == (run.run_id, "child", 1)
    assert (found.trigger_type, found.trigger_id) == ("run", run.run_id)
    assert (found.workflow_id, found.owner_id, found.inputs) == (below, run.owner_id, {"x": 3})


async def test_a_run_whose_child_works_waits(world: World) -> None:
    """It holds none of the places of steps that work."""
    below = await world.create(code("a", SLEEPS))
    run = await world.begin(await world.create(child("child", below)))
    found = await _child_of(world, run)
    assert (await world.find(run.run_id)).status is RunStatus.WAITING
    await world.service.cancel(world.user, found.run_id)
    assert (await world.until_run(run.run_id)).status is RunStatus.FAILED
    row = await world.step(run, "child")
    assert row.error is not None
    assert (row.error.name, row.attempt) == ("ChildCancelled", 1)
    assert found.run_id in row.error.value


async def test_a_child_that_fails_fails_the_step_and_each_attempt_is_another_run(world: World) -> None:
    """The error names the run that the last attempt was."""
    below = await world.create(code("bad", "raise ValueError('no')"))
    run = await world.run(child("child", below, retry={"max_attempts": 3, "delay": 0}))
    assert run.status is RunStatus.FAILED
    row = await world.step(run, "child")
    assert row.error is not None
    assert (row.attempt, row.error.name) == (3, "ChildFailed")
    assert str(row.child_run_id) in row.error.value
    events = await world.store.runs.list_history(run.run_id)
    started = [event.details["child_run_id"] for event in events if event.kind == "step_started"]
    assert len(set(started)) == 3
    for run_id in started:
        assert (await world.find(run_id)).status is RunStatus.FAILED


async def test_a_cancel_reaches_the_children_first(world: World) -> None:
    """The run below is killed and tidies up before the run above ends."""
    below = await world.create(code("slow", SLEEPS), **{"finally": [code("tidy")]})
    run = await world.begin(await world.create(child("child", below)))
    found = await _child_of(world, run)
    await world.until_step(found, "slow", StepStatus.RUNNING)
    ended = await world.service.cancel(world.user, run.run_id)
    found = await world.find(found.run_id)
    assert (ended.status, found.status) == (RunStatus.CANCELLED, RunStatus.CANCELLED)
    assert (await world.step(run, "child")).status is StepStatus.CANCELLED
    assert (await world.step(found, "tidy")).status is StepStatus.SUCCEEDED


async def test_limits_of_time_reach_down(world: World) -> None:
    """That of the step is one of the child; that of the run above ends both."""
    below = await world.create(code("slow", SLEEPS))
    by_step = await world.begin(await world.create(child("child", below, timeout=5)))
    by_run = await world.begin(await world.create(child("child", below), timeout=5))
    for run in (by_step, by_run):
        await world.until_step(await _child_of(world, run), "slow", StepStatus.RUNNING)
    world.pass_time(6)
    assert (await world.until_run(by_step.run_id)).status is RunStatus.FAILED
    assert (await world.until_run(by_run.run_id)).status is RunStatus.TIMED_OUT
    assert [(await world.step(run, "child")).status for run in (by_step, by_run)] == [StepStatus.TIMED_OUT] * 2
    rows = [await world.step(run, "child") for run in (by_step, by_run)]
    assert [(await world.find(row.child_run_id)).status for row in rows] == [RunStatus.TIMED_OUT, RunStatus.CANCELLED]


async def _refusal(world: World, step: dict[str, Any]) -> str:
    row = await world.step(await world.run(step), step["name"])
    assert row.error is not None
    return row.error.name


async def test_what_cannot_be_started_fails_the_step(world: World) -> None:
    """Another user's workflow is as unknown as none; inputs have to fit."""
    foreign = await world.create(code("a"), user=make_principal())
    picky = await world.create(code("a"), inputs={"x": {"type": "integer", "required": True}})
    assert await _refusal(world, child("child", foreign)) == "WorkflowNotFound"
    assert await _refusal(world, child("child", "workflow-0")) == "WorkflowNotFound"
    assert await _refusal(world, child("child", picky, {"x": "one"})) == "InvalidInputs"
    assert await _refusal(world, child("child", picky, {"x": 1, "y": 1})) == "InvalidInputs"
    assert await _refusal(world, child("child", picky, {"x": "${{ run.started_at + 1 }}"})) == "InvalidInputs"


@pytest.mark.parametrize(
    ("settings", "error"), [(Settings(max_run_depth=3), "TooDeep"), (Settings(max_runs=4), "TooManyRuns")]
)
async def test_a_workflow_that_starts_itself_comes_to_an_end(store: SqlStore, settings: Settings, error: str) -> None:
    """At the bound the step fails, and so does every run above."""
    world = await World(store, settings).start()
    run = await world.run(child("again", "self"))
    assert run.status is RunStatus.FAILED
    depth = 0
    while row := await world.step(run, "again"):
        assert row.error is not None
        if row.error.name == error:
            break
        run, depth = await world.find(row.child_run_id), depth + 1
    assert (depth, run.depth) == (3, 3)
    await world.stop()


async def test_a_crash_starts_no_second_child(world: World) -> None:
    """The next process goes on waiting for the same run, which goes on too."""
    below = await world.create(
        code("nap"), {"name": "ask", "type": "approval"}, outputs={"by": "${{ steps.ask.outputs.by }}"}
    )
    run = await world.begin(await world.create(child("child", below)))
    found = await _child_of(world, run)
    await world.until_step(found, "ask", StepStatus.WAITING)
    next_world = await world.crash()
    await next_world.service.decide(world.user, found.run_id, "ask", approved=True, comment="")
    assert (await next_world.until_run(run.run_id)).status is RunStatus.SUCCEEDED
    row = await next_world.step(run, "child")
    assert (row.attempt, row.child_run_id, row.outputs) == (1, found.run_id, {"by": "somebody"})
    assert len((await next_world.service.list_runs(world.user, RunFilter(workflow_id=below), PageRequest())).items) == 1
    await next_world.stop()


async def test_a_child_that_was_named_and_not_begun_is_begun_after_a_crash(world: World) -> None:
    """Between the two writes stands the name, and whoever comes next uses it."""
    below = await world.create(code("a"), outputs={"n": 1})
    workflow_id = await world.create({"name": "ask", "type": "approval"}, child("child", below))
    run = await world.begin(workflow_id)
    world.engine._work._children = Nobody()  # type: ignore[assignment]
    await world.service.decide(world.user, run.run_id, "ask", approved=True, comment="")
    named = await world.until_step(run, "child", StepStatus.WAITING)
    assert await world.store.runs.find(RunId(str(named.child_run_id))) is None
    next_world = await world.crash()
    assert (await next_world.until_run(run.run_id)).status is RunStatus.SUCCEEDED
    assert await next_world.step(run, "child") == replace(
        await next_world.step(run, "child"), child_run_id=named.child_run_id, attempt=1, outputs={"n": 1}
    )
    await next_world.stop()


class Nobody:
    """In the place of what begins children: it dies before it does."""

    async def follow(self, *_: Any) -> None:
        """Never answers."""
        await asyncio.Event().wait()


async def test_a_child_in_another_process_is_cancelled_and_waited_for(world: World, store: SqlStore) -> None:
    """It is told by a row, whoever works on it; its end is found by looking."""
    below = await world.create({"name": "ask", "type": "approval"})
    run = await world.begin(await world.create(child("child", below)))
    found = await _child_of(world, run)
    await world.until_step(found, "ask", StepStatus.WAITING)
    await store.runs.release("one", [found.run_id])
    world.engine.let_go(found.run_id)
    other = await World(store, clock=world.clock, user=world.user, owner="two").start()
    async with asyncio.timeout(60):
        while other.engine.find(found.run_id) is None:
            now = world.clock.now()
            for taken in await store.runs.claim("two", now, 60, 10):
                await other.engine.take_over(taken)
        cancelling = asyncio.ensure_future(world.service.cancel(world.user, run.run_id))
        while not cancelling.done():
            await other.engine.take_signals()
    assert (await cancelling).status is RunStatus.CANCELLED
    assert (await world.find(found.run_id)).status is RunStatus.CANCELLED
    await other.stop()
