"""What was accepted under rules that were less strict than today's: it is shown and deleted, and says what is wrong."""

import pytest

from sandgate.core.errors import InvalidDefinition, StepNotFound, WorkflowNotFound
from sandgate.core.page import PageRequest
from sandgate.core.run import StepStatus
from sandgate.workflows import names
from sandgate.workflows.outline import outline
from tests.unit.workflows.conftest import World, code


async def test_a_definition_with_too_many_needs_is_shown_and_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its runs and their steps; what would run it is refused, and says why."""
    run = await world.run(code("a"), code("b", needs=["a"]), code("c", needs=["a", "b"]), **{"finally": [code("z")]})
    monkeypatch.setattr(names, "MAX_NEEDS", 2)
    world.engine.graphs._kept.clear()
    caller, workflow_id = world.user, run.workflow_id
    assert (await world.service.get(caller, workflow_id)).workflow_id == workflow_id
    assert [row.workflow_id for row in (await world.service.list(caller, PageRequest())).items] == [workflow_id]
    view = await world.service.view(caller, run.run_id)
    assert [step.name for step in (*view.definition.steps, *view.definition.final)] == ["a", "b", "c", "z"]
    assert {row.step: row.status for row in view.steps} == dict.fromkeys("abcz", StepStatus.SUCCEEDED)
    assert (await world.service.view_newest(caller, workflow_id, None)).run.run_id == run.run_id
    assert (await world.service.get_step(caller, run.run_id, "c")).status is StepStatus.SUCCEEDED
    with pytest.raises(StepNotFound):
        await world.service.get_step(caller, run.run_id, "d")
    with pytest.raises(InvalidDefinition, match="need at most 2 others"):
        await world.service.start(caller, workflow_id, {}, 0)
    await world.service.delete(caller, workflow_id, force=False)
    with pytest.raises(WorkflowNotFound):
        await world.service.get(caller, workflow_id)
    assert (await world.service.view(caller, run.run_id)).run.run_id == run.run_id


@pytest.mark.parametrize(
    "raw", [None, [], {}, {"steps": 1}, {"steps": [None, {"name": 1, "type": "sleep"}, {"type": []}]}]
)
def test_an_outline_is_made_of_anything(raw: object) -> None:
    """What is no step is not in it."""
    assert outline(raw).steps == ()
