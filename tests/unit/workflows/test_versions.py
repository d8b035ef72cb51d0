"""Runs that begin in the moment in which another version takes the place of theirs."""

from typing import Any

import pytest

from sandgate.core.ids import WorkflowId
from sandgate.core.run import RunStatus
from sandgate.core.workflow import Workflow
from tests.unit.workflows.conftest import World, child, code


def _change_after_reading(world: World, monkeypatch: pytest.MonkeyPatch, wanted: WorkflowId, times: int) -> None:
    """Whoever reads the workflow is told of it as it was before somebody else replaced it, so many times."""
    find, left = world.store.workflows.find, [None] * times

    async def find_late(workflow_id: WorkflowId) -> Workflow | None:
        found = await find(workflow_id)
        if workflow_id == wanted and left:
            left.pop()
            assert found is not None
            monkeypatch.setattr(world.store.workflows, "find", find)
            definition: dict[str, Any] = {"name": "w", "steps": [code("a")], "description": f"{found.version + 1}"}
            await world.service.replace(world.user, workflow_id, definition)
            monkeypatch.setattr(world.store.workflows, "find", find_late)
        return found

    monkeypatch.setattr(world.store.workflows, "find", find_late)


async def test_it_is_a_run_of_the_newest_version(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often that happens; nobody is told that there is no such workflow."""
    workflow_id = await world.create(code("a"))
    _change_after_reading(world, monkeypatch, workflow_id, 3)
    run = await world.begin(workflow_id, wait_s=30)
    assert (run.status, run.workflow_version) == (RunStatus.SUCCEEDED, 4)
    # Nothing was written that could be held by nobody, so that nobody looks for it.
    assert not world.engine._leases._is_doubtful()


async def test_so_is_a_run_that_a_step_starts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step does not fail."""
    below = await world.create(code("a"))
    above = await world.create(child("c", below))
    _change_after_reading(world, monkeypatch, below, 1)
    run = await world.begin(above, wait_s=30)
    assert run.status is RunStatus.SUCCEEDED
    row = await world.step(run, "c")
    assert (await world.find(row.child_run_id)).workflow_version == 2


async def test_a_run_starts_its_own_version_whatever_has_followed(world: World) -> None:
    """Which stays as long as the run does."""
    again = child("c", "self", {"depth": 1}, **{"if": "${{ inputs.depth == 0 }}"})
    inputs = {"depth": {"type": "integer", "default": 0}}
    workflow_id = await world.create(code("a", "import time; time.sleep(0.2)"), again, inputs=inputs)
    run = await world.begin(workflow_id)
    await world.service.replace(world.user, workflow_id, {"name": "w", "steps": [code("b")]})
    ended = await world.until_run(run.run_id)
    assert (ended.status, ended.workflow_version) == (RunStatus.SUCCEEDED, 1)
    row = await world.step(ended, "c")
    assert (await world.find(row.child_run_id)).workflow_version == 1
