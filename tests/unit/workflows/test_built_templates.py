"""Steps in templates that users have had built: whose they are, and which version a run keeps to."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sandgate.config.settings import Settings
from sandgate.core.built import BuiltTemplate
from sandgate.core.errors import InvalidDefinition, TooManyLiveTemplates
from sandgate.core.ids import UserId, make_template_id
from sandgate.core.language import Language
from sandgate.core.limits import MIB, AskedLimits
from sandgate.core.recipe import Recipe
from sandgate.core.run import Run, RunStatus, StepStatus
from sandgate.core.states import Isolation, TemplateStatus
from sandgate.environments.base import NewEnvironment
from sandgate.sandbox.base import SandboxSpec
from sandgate.store.sql_store import SqlStore
from sandgate.workflows import step_templates
from sandgate.workflows.holdings import TemplateUses
from sandgate.workflows.workspaces import workspace_id
from tests.unit.workflows.conftest import World, code, make_principal

ASK = {"name": "ask", "type": "approval"}
RECIPE = Recipe(
    "python-3.9",
    env={"A": "b"},
    preload=("json",),
    limits=AskedLimits(memory_bytes=99 * MIB),
    languages=(Language("lisp", (("sh",),), ""),),
)


def _add(world: World, version: int = 1, name: str = "data", **changes: Any) -> BuiltTemplate:
    """A template of the user's, ready unless something else is said."""
    row = BuiltTemplate(
        make_template_id(), world.user.user_id, name, version, TemplateStatus.READY, "digest", "/usr/bin/python3.9",
        False, "one", world.clock.now(), RECIPE,
    )  # fmt: skip
    row = replace(row, **changes)
    world.templates.put(row)
    return row


def _made(world: World) -> list[SandboxSpec]:
    """The sandboxes that were made of built templates."""
    return [spec for spec in world.runtime.made if spec.layer is not None]


async def _approve(world: World, run: Run) -> Run:
    await world.until_step(run, "ask", StepStatus.WAITING)
    await world.service.decide(world.user, run.run_id, "ask", approved=True, comment="")
    return await world.until_run(run.run_id)


async def test_a_step_runs_in_what_was_built(world: World) -> None:
    """With its layer, its limits and its class, whether the step names it or the defaults do."""
    row = _add(world)
    for step, more in ((code("a", template="data"), {}), (code("a"), {"defaults": {"template": "data@1"}})):
        run = await world.run(step, **more)
        assert run.status is RunStatus.SUCCEEDED
        spec = _made(world)[-1]
        assert spec.layer is not None
        assert (spec.template, spec.layer.folder, spec.isolation) == (row.template_id, row.template_id, "standard")
        assert (spec.layer.env, spec.layer.preload, spec.limits.memory_bytes) == ({"A": "b"}, ("json",), 99 * MIB)
        assert list((await world.find(run.run_id)).templates.values()) == ["data@1"]
    assert (await world.run(code("a"))).templates == {}


@pytest.mark.parametrize("workspace", ["step", "run"])
async def test_a_run_keeps_to_the_version_that_it_began_with(world: World, workspace: str) -> None:
    """Also in another process, when the template has been built again; a new run has the new version."""
    first = _add(world)
    workflow_id = await world.create(
        ASK, code("a", template="data", needs=["ask"]), workspace=workspace
    )  # fmt: skip
    run = await world.begin(workflow_id)
    await world.until_step(run, "ask", StepStatus.WAITING)
    second = _add(world, 2)
    other = await world.crash()
    assert (await _approve(other, run)).templates == {"data": "data@1"}
    assert [spec.template for spec in _made(other)] == [first.template_id]
    later = await _approve(other, await other.begin(workflow_id))
    assert (later.status, later.templates) == (RunStatus.SUCCEEDED, {"data": "data@2"})
    assert _made(other)[-1].template == second.template_id
    await other.stop()


async def test_a_version_that_is_gone_fails_the_step(world: World) -> None:
    """As a retry of a run finds it, whose template was deleted when it had ended."""
    first = _add(world)
    run = await world.begin(await world.create(ASK, code("a", template="data", needs=["ask"])))
    world.templates.remove(first.template_id)
    _add(world, 2)
    assert (await _approve(world, run)).status is RunStatus.FAILED
    error = (await world.step(run, "a")).error
    assert error is not None
    assert (error.name, error.value.partition(";")[0]) == ("Refused", "There is no template 'data@1'")


async def test_one_that_is_not_ready_yet(world: World) -> None:
    """It can be named; a step that begins before it is ready fails, one that begins later runs."""
    row = _add(world, status=TemplateStatus.BUILDING)
    workflow_id = await world.create(code("a", template="data"))
    run = await world.begin(workflow_id, wait_s=60)
    error = (await world.step(run, "a")).error
    assert error is not None
    assert error.value == "The template data@1 cannot be used: it is still being built"
    world.templates.put(replace(row, status=TemplateStatus.READY))
    await world.service.retry(world.user, run.run_id, None)
    assert (await world.until_run(run.run_id)).status is RunStatus.SUCCEEDED


_NAMES = [
    ("data", None),
    ("data@1", None),
    ("building", None),
    ("python-3.8", None),
    ("data@2", "There is no template `data@2`"),
    ("date", "There is no template `date`; did you mean `data`?"),
    ("theirs", "There is no template `theirs`"),
    ("failed", "The template failed@1 cannot be used: its build has failed: no such package"),
]


@pytest.mark.parametrize("where", ["step", "defaults"])
@pytest.mark.parametrize(("name", "problem"), _NAMES)
async def test_names_are_looked_up_before_a_workflow_is_there(
    world: World, where: str, name: str, problem: str | None
) -> None:
    """What there is no such template of, for this user, is told with its place; what may be ready later is taken."""
    _add(world)
    _add(world, name="building", status=TemplateStatus.BUILDING)
    _add(world, name="failed", status=TemplateStatus.FAILED, status_reason="no such package")
    _add(world, name="theirs", owner_id=make_principal().user_id)
    config = {"template": name}
    raw: dict[str, Any] = {"name": "w", "steps": [code("a", **(config if where == "step" else {}))]}
    if where == "defaults":
        raw["defaults"] = config
    if problem is None:
        await world.service.validate(world.user, raw)
        await world.service.create(world.user, raw)
        return
    pointer = "/steps/0/config/template" if where == "step" else "/defaults/template"
    with pytest.raises(InvalidDefinition) as refused:
        await world.service.validate(world.user, raw)
    ((found, text),) = refused.value.problems
    assert (found, text[: len(problem)]) == (pointer, problem)
    with pytest.raises(InvalidDefinition):
        await world.service.create(world.user, raw)


async def test_the_template_is_that_of_the_owner(world: World) -> None:
    """Whoever validates is asked about their own; a public one is everybody's."""
    owner = make_principal()
    _add(world, owner_id=owner.user_id)
    raw = {"name": "w", "steps": [code("a", template="data")]}
    await world.service.validate(owner, raw)
    with pytest.raises(InvalidDefinition):
        await world.service.validate(world.user, raw)
    row = _add(world, name="shared", owner_id=owner.user_id, is_public=True)
    assert (await world.run(code("a", template="shared"))).templates == {"shared": "shared@1"}
    assert _made(world)[-1].template == row.template_id


async def test_its_languages_are_those_of_steps(world: World) -> None:
    """What it declares can be named, and what it does not is refused when the step begins."""
    _add(world)
    assert (await world.run(code("a", template="data", language="lisp"))).status is RunStatus.SUCCEEDED
    run = await world.run(code("a", template="data", language="prolog"))
    error = (await world.step(run, "a")).error
    assert error is not None
    assert error.value.endswith("knows no language 'prolog'; it knows: python, lisp")


async def test_live_runs_need_what_they_began_with(world: World) -> None:
    """Until they are over; those of others may have templates of the same name."""
    row = _add(world)
    other = replace(row, owner_id=UserId("user-0"))
    newer = replace(row, version=2)
    runs = TemplateUses(world.engine, world.sandboxes)
    run = await world.begin(await world.create(ASK, code("a", template="data", needs=["ask"])))
    assert [runs.count_of(each) for each in (row, other, newer)] == [1, 0, 0]
    assert runs.count_of(replace(other, is_public=True)) == 1
    await _approve(world, run)
    await world.until(lambda: runs.count_of(row) == 0)


async def test_a_class_that_has_no_built_templates(world: World) -> None:
    """It is said, instead of a sandbox that cannot be made."""
    own: Any = world.templates.own
    own._templates = {
        name: replace(each, isolations=(Isolation.PROCESS,)) for name, each in own._templates.items()
    }  # fmt: skip
    _add(world)
    run = await world.run(code("a", template="data"))
    error = (await world.step(run, "a")).error
    assert error is not None
    assert error.value == "The template data@1 was built, and this server holds no class that has such"


async def test_templates_of_steps_are_bounded_with_those_of_environments(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step waits a while for a place, and says what has it; when it is over its own is free again."""
    world = await World(store, settings=Settings(drain_grace_s=0.01, max_live_templates_per_user=1)).start()
    _add(world)
    _add(world, name="other")
    row = await world.environments.create(world.user, NewEnvironment("e", "other"))
    await world.until(lambda: row.environment_id in world.runtime.sandboxes)
    monkeypatch.setattr(step_templates, "_PATIENCE_S", 0.0)
    run = await world.run(code("a", template="data"))
    error = (await world.step(run, "a")).error
    assert error is not None
    assert error.value.startswith("Your live environments and steps are of 1 built templates, and 1 is the most")
    monkeypatch.undo()
    again = await world.begin(await world.create(code("a", template="data")))
    await world.environments.delete(world.user, row.environment_id)
    assert (await world.until_run(again.run_id)).status is RunStatus.SUCCEEDED
    await world.until(lambda: not world.runtime.sandboxes)
    await world.until(lambda: not world.environments.template_places._templates)
    await world.stop()
    assert not world.faults


async def test_one_that_is_deleted_while_a_step_waits_for_a_place(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is told so when it has one, and the place is free again."""
    world = await World(store, settings=Settings(drain_grace_s=0.01, max_live_templates_per_user=1)).start()
    data, other = _add(world), _add(world, name="other")
    row = await world.environments.create(world.user, NewEnvironment("e", "other"))
    await world.until(lambda: row.environment_id in world.runtime.sandboxes)
    places = world.environments.template_places
    check, waiting = places.check_template, asyncio.Event()

    def note(user_id: UserId, template: str) -> None:
        try:
            check(user_id, template)
        except TooManyLiveTemplates:
            waiting.set()
            raise

    monkeypatch.setattr(places, "check_template", note)
    monkeypatch.setattr(step_templates, "_PATIENCE_S", 600.0)
    run = await world.begin(await world.create(code("a", template="data")))
    await world.until_step(run, "a", StepStatus.RUNNING)
    await waiting.wait()
    world.templates.remove(data.template_id)
    await world.environments.delete(world.user, row.environment_id)
    assert (await world.until_run(run.run_id)).status is RunStatus.FAILED
    error = (await world.step(run, "a")).error
    assert error is not None
    assert (error.name, error.value.partition(";")[0]) == ("Refused", "There is no template 'data@1'")
    await world.until(lambda: not places._templates)
    assert [world.sandboxes.count_of(each) for each in (data, other)] == [0, 0]
    await world.stop()
    assert not world.faults


@pytest.mark.parametrize("is_held", [True, False])
async def test_a_workspace_that_has_ended_takes_no_place(world: World, is_held: bool) -> None:
    """It is noticed with the lease of its run, which may wait for long, or by the next step."""
    row = _add(world)
    last = code("b", needs=["ask"], template="data", retry={"max_attempts": 2, "on": ["failed"]})
    steps = code("a", template="data"), {**ASK, "needs": ["a"]}, last
    run = await world.begin(await world.create(*steps, workspace="run"))
    await world.until_step(run, "ask", StepStatus.WAITING)
    assert world.sandboxes.count_of(row) == 1
    world.runtime.sandboxes[workspace_id(run.run_id)].die("expired")
    if is_held:
        await world.engine.hold()
        assert world.sandboxes.count_of(row) == 0
        assert not world.environments.template_places._templates
    assert (await _approve(world, run)).status is RunStatus.FAILED
    error = (await world.step(run, "b")).error
    assert error is not None
    assert "The workspace of the run is gone" in error.value
    assert world.sandboxes.count_of(row) == 0


async def test_a_workspace_that_was_taken_over_has_its_place(world: World) -> None:
    """Until its run is over."""
    row = _add(world)
    steps = code("a", template="data"), {**ASK, "needs": ["a"]}
    run = await world.begin(await world.create(*steps, workspace="run"))
    await world.until_step(run, "ask", StepStatus.WAITING)
    other = await world.crash()
    assert other.sandboxes.count_of(row) == 1
    assert other.environments.template_places._templates == {world.user.user_id: {"data@1": 1}}
    await _approve(other, run)
    await other.until(lambda: other.sandboxes.count_of(row) == 0)
    assert not other.environments.template_places._templates
    await other.stop()
