"""What the engine does with what the rules say."""

from sandgate.core.run import RunStatus, StepStatus
from sandgate.workflows.events import AttemptEnded, CancelAsked
from tests.unit.workflows.conftest import World, code
from tests.unit.workflows.walk import FAILED


async def test_steps_hand_on_data(world: World) -> None:
    """From the inputs of the run through outputs and variables."""
    run = await world.run(
        code("a", "outputs['n'] = inputs['x']", inputs={"x": "${{ inputs.x }}"}),
        code("b", "outputs['m'] = inputs['n']", inputs={"n": ["${{ steps.a.outputs.n }}", "${{ env.V }}"]}),
        inputs={"x": {"type": "integer", "default": 3}},
        env={"V": "${{ inputs.x }}"},
    )
    assert run.status is RunStatus.SUCCEEDED
    assert (await world.step(run, "b")).outputs == {"m": [3, "3"]}


async def test_conditions_see_variables(world: World) -> None:
    """Of the document."""
    run = await world.run(code("a", **{"if": "env.GO == 'yes'"}), env={"GO": "yes"})
    assert (await world.step(run, "a")).status is StepStatus.SUCCEEDED


async def test_an_attempt_that_was_killed_before_it_began_never_runs(world: World) -> None:
    """A failure that is tried again, and a cancel in the same breath, leave nothing running."""
    slow = code("a", "import time\ntime.sleep(60)", retry={"max_attempts": 3})
    run = await world.begin(await world.create(slow))
    row = await world.until_step(run, "a", StepStatus.RUNNING)
    live = world.engine.find(run.run_id)
    assert live is not None
    live.events += [AttemptEnded(row.key, 1, FAILED), CancelAsked("somebody")]
    world.engine.post(live)
    assert (await world.until_run(run.run_id)).status is RunStatus.CANCELLED
    assert (await world.step(run, "a")).attempt == 2


async def test_inputs_over_their_bound_fail_the_step_that_has_them(world: World) -> None:
    """Its code never runs, and the error says how long they are and may be."""
    double = ["${{ steps.a.outputs.t }}", "${{ steps.a.outputs.t }}"]
    run = await world.run(
        code("a", "outputs['t'] = 'x' * 200_000"),
        code("b", "outputs['ran'] = True", inputs={"t": double}),
    )
    assert run.status is RunStatus.FAILED
    step = await world.step(run, "b")
    assert step.status is StepStatus.FAILED
    assert not step.outputs
    assert "The inputs are 400" in str(step.error)
    assert "262144 is the most" in str(step.error)
