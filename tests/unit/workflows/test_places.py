"""Where the code of steps runs: alone, in the workspace of the run, or in a named environment."""

from typing import Any

import pytest

from sandgate.core.ids import EnvironmentId
from sandgate.core.page import PageRequest
from sandgate.core.run import Run, RunStatus, StepStatus
from sandgate.core.states import ExecutionStatus
from sandgate.store.sql_store import SqlStore
from sandgate.workflows.workspaces import workspace_id
from tests.unit.workflows.conftest import World, code, make_principal

SLEEPS = "import time\ntime.sleep(60)"
ASK = {"name": "ask", "type": "approval"}
SHARED = {"workspace": "run"}


def _made(world: World, run: Run) -> list[str]:
    """The sandboxes that were made for the run's workspace, by template."""
    return [spec.template for spec in world.runtime.made if spec.environment_id == workspace_id(run.run_id)]


async def _approve(world: World, run: Run) -> None:
    await world.until_step(run, "ask", StepStatus.WAITING)
    await world.service.decide(world.user, run.run_id, "ask", approved=True, comment="")


async def test_steps_share_one_workspace(world: World) -> None:
    """Made when the first one needs it, from the template that is named, and gone after the run."""
    steps = [ASK, code("a"), code("b", needs=["ask"], template="python-3.9"), code("c", needs=["a", "b"])]
    workflow_id = await world.create(*steps, **SHARED)
    run = await world.begin(workflow_id)
    await world.until_step(run, "ask", StepStatus.WAITING)
    assert world.runtime.made == []
    await _approve(world, run)
    assert (await world.until_run(run.run_id)).status is RunStatus.SUCCEEDED
    assert _made(world, run) == ["python-3.9"]
    assert len(world.runtime.made) == 1
    await world.until(lambda: not world.runtime.sandboxes)


async def test_runs_do_not_share_theirs(world: World) -> None:
    """Each has one of its own."""
    workflow_id = await world.create(code("a"), **SHARED)
    runs = [await world.begin(workflow_id, wait_s=30) for _ in range(2)]
    assert [_made(world, run) for run in runs] == [["python"], ["python"]]


async def test_a_cancel_ends_the_code_and_then_the_workspace(world: World) -> None:
    """What tidies up finds it."""
    workflow_id = await world.create(code("a", SLEEPS), **SHARED, **{"finally": [code("tidy")]})
    run = await world.begin(workflow_id)
    await world.until(lambda: workspace_id(run.run_id) in world.runtime.sandboxes)
    ended = await world.service.cancel(world.user, run.run_id)
    assert ended.status is RunStatus.CANCELLED
    assert (await world.step(run, "tidy")).status is StepStatus.SUCCEEDED
    assert len(_made(world, run)) == 1
    await world.until(lambda: not world.runtime.sandboxes)


async def test_who_runs_in_a_workspace_that_ends_is_lost(world: World) -> None:
    """And tried again in a new one."""
    run = await world.begin(await world.create(code("a", SLEEPS), **SHARED))
    await world.until(lambda: workspace_id(run.run_id) in world.runtime.sandboxes)
    sandbox = world.runtime.sandboxes[workspace_id(run.run_id)]
    await world.until(lambda: bool(sandbox._running))
    world.runtime.kill(workspace_id(run.run_id), "killed")
    await world.until(lambda: len(_made(world, run)) == 2)
    row = await world.step(run, "a")
    assert (row.attempt, row.losses) == (2, 1)


@pytest.mark.parametrize(("on", "status", "attempts"), [(["failed"], "failed", 1), (["lost"], "succeeded", 2)])
async def test_a_workspace_that_ends_between_steps_is_missed_once(
    world: World, on: list[str], status: str, attempts: int
) -> None:
    """The next attempt is lost, with the files; only who wants to be tried again goes on in a new one."""
    retry = {"max_attempts": 2, "on": on}
    run = await world.begin(await world.create(code("a"), ASK, code("b", retry=retry), code("c"), **SHARED))
    await world.until_step(run, "ask", StepStatus.WAITING)
    world.runtime.kill(workspace_id(run.run_id), "killed")
    await _approve(world, run)
    assert (await world.until_run(run.run_id)).status == status
    row = await world.step(run, "b")
    assert row.attempt == attempts
    if status == "failed":
        assert row.error is not None
        assert "workspace" in row.error.value


async def test_a_workspace_outlives_the_process(world: World) -> None:
    """The next one adopts it; a run that another process has ended meanwhile leaves none behind."""
    workflow_id = await world.create(code("a"), ASK, code("b"), **SHARED)
    kept, ended = [await world.begin(workflow_id) for _ in range(2)]
    for run in (kept, ended):
        await world.until_step(run, "ask", StepStatus.WAITING)
    again = await world.crash()
    assert set(again.runtime.sandboxes) == {workspace_id(kept.run_id), workspace_id(ended.run_id)}
    await again.service.cancel(world.user, ended.run_id)
    await again.until(lambda: set(again.runtime.sandboxes) == {workspace_id(kept.run_id)})
    await _approve(again, kept)
    assert (await again.until_run(kept.run_id)).status is RunStatus.SUCCEEDED
    assert again.runtime.made == []
    await again.until(lambda: not again.runtime.sandboxes)
    await again.stop()


# Until it is woken.
SLOW = "import time\nprint('begun')\ntime.sleep(20)\noutputs['n'] = 1"


async def test_what_runs_in_a_workspace_outlives_the_process(world: World) -> None:
    """Side by side, as the attempts that they are; when their results are written nobody is to take them up again."""
    items = code("items", SLOW, foreach="${{ from_json('[1, 2]') }}", needs=[])
    run = await world.begin(await world.create(code("a", SLOW), items, ASK, **SHARED))
    await world.until(lambda: _tagged(world) == 3)
    again = await world.crash()
    again.runtime.wake()
    await again.until_step(run, "ask", StepStatus.WAITING)
    for key in (("a", None), ("items", 0), ("items", 1)):
        row = await again.step(run, *key)
        assert (row.status, row.attempt, row.stdout) == (StepStatus.SUCCEEDED, 1, "begun\n")
    await again.until(lambda: _tagged(again) == 0)
    await _approve(again, run)
    assert (await again.until_run(run.run_id)).status is RunStatus.SUCCEEDED
    await again.stop()


def _tagged(world: World) -> int:
    return sum(len(sandbox.tagged) for sandbox in world.runtime.sandboxes.values())


async def test_what_is_not_taken_up_is_ended_and_the_rest_goes_on(world: World) -> None:
    """A run that was cancelled while its process was gone leaves nothing running in an environment that goes on."""
    environment_id = await world.create_environment()
    runs = [await _in_environment(world, environment_id, text=text) for text in (SLOW, SLEEPS)]
    await world.until(lambda: _tagged(world) == 2)
    again = await world.crash()
    await again.service.cancel(world.user, runs[1].run_id)
    again.runtime.wake()
    assert (await again.until_run(runs[0].run_id)).status is RunStatus.SUCCEEDED
    assert (await again.step(runs[0], "a")).attempt == 1
    await again.until(lambda: _tagged(again) == 0)
    rows = (await again.environments.list_executions(world.user, environment_id, PageRequest(limit=10))).items
    assert {row.status for row in rows} == {ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED}
    assert len(rows) == 2
    await again.stop()


async def test_what_belongs_to_no_run_any_more_is_ended_at_the_start(world: World, store: SqlStore) -> None:
    """Another process took the run over while this one was gone."""
    run = await world.begin(await world.create(code("a"), ASK, **SHARED))
    await world.until_step(run, "ask", StepStatus.WAITING)
    world.clock.advance(60)
    other = World(store, clock=world.clock, user=world.user, owner="two")
    await other.engine.start()
    again = await world.crash()
    assert not again.runtime.sandboxes
    await again.stop()
    await other.engine.stop()


async def _in_environment(world: World, environment_id: str, **more: Any) -> Run:
    step = code("a", more.pop("text", "print('hi')"), environment_id="${{ inputs.e }}", **more)
    workflow_id = await world.create(step, inputs={"e": {"type": "string"}})
    return await world.begin(workflow_id, e=environment_id)


async def test_a_step_runs_in_an_environment_of_its_owner(world: World) -> None:
    """As an execution that is listed there; the environment goes on afterwards."""
    environment_id = await world.create_environment()
    run = await world.until_run((await _in_environment(world, environment_id)).run_id)
    row = await world.step(run, "a")
    assert (run.status, row.stdout, row.outputs) == (RunStatus.SUCCEEDED, "hi\n", {})
    assert len(world.runtime.made) == 1
    (seen,) = (await world.environments.list_executions(world.user, environment_id, PageRequest())).items
    assert (seen.status, seen.stdout) == (ExecutionStatus.COMPLETED, "hi\n")
    assert environment_id in world.runtime.sandboxes


async def test_environments_that_cannot_be_used_fail_the_step(world: World) -> None:
    """Another user's is as unknown as none; one that has ended says so."""
    foreign = await world.create_environment(make_principal())
    ended = await world.create_environment()
    await world.environments.delete(world.user, ended)
    expired = await world.create_environment()
    world.runtime.kill(expired, "its process 1 ended")
    for environment_id in (foreign, EnvironmentId("env-000000000000"), ended, expired):
        run = await world.until_run((await _in_environment(world, environment_id)).run_id)
        row = await world.step(run, "a")
        assert row.error is not None
        assert (row.status, row.attempt) == (StepStatus.FAILED, 1)
        assert environment_id in row.error.value


async def test_a_cancel_ends_the_execution_and_not_the_environment(world: World) -> None:
    """It is recorded as cancelled before the run ends."""
    environment_id = await world.create_environment()
    run = await _in_environment(world, environment_id, text=SLEEPS)
    await world.until(lambda: world.environments.running_count == 1)
    await world.service.cancel(world.user, run.run_id)
    assert world.environments.running_count == 0
    (seen,) = (await world.environments.list_executions(world.user, environment_id, PageRequest())).items
    assert seen.status is ExecutionStatus.CANCELLED
    assert environment_id in world.runtime.sandboxes


async def test_a_step_in_an_environment_that_ends_is_lost(world: World) -> None:
    """There is no other one to try it in again."""
    environment_id = await world.create_environment()
    run = await _in_environment(world, environment_id, text=SLEEPS)
    await world.until(lambda: world.environments.running_count == 1)
    world.runtime.kill(environment_id, "killed")
    run = await world.until_run(run.run_id)
    row = await world.step(run, "a")
    assert (run.status, row.losses) == (RunStatus.FAILED, 1)
