"""What a run that failed says about why."""

import pytest

from sandgate.core.execution import ErrorReport
from sandgate.core.run import Run, StepStatus
from tests.unit.workflows.conftest import World, code

FAILS = "raise ValueError('no such file')"


def _error(run: Run) -> str:
    assert run.error is not None
    assert isinstance(run.error, ErrorReport)
    assert run.error.name == "StepFailed"
    return run.error.value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FAILS, "the step b failed: ValueError: no such file"),
        ("import sys; sys.exit(3)", "the step b failed: SystemExit: 3"),
        ("raise ValueError('" + "x" * 300 + "')", "the step b failed: ValueError: " + "x" * 200 + "…"),
    ],
)
async def test_it_says_what_the_step_came_to(world: World, text: str, said: str) -> None:
    """Its name and its error, in one line that is not long."""
    assert _error(await world.run(code("a"), code("b", text), code("c"))) == said


async def test_a_time_limit(world: World) -> None:
    """A step that took too long did not fail by itself."""
    run = await world.run(code("a", "import time\ntime.sleep(60)", timeout=0.1))
    assert _error(run) == "the step a timed out: TimedOut: the step took longer than it may"


async def test_items(world: World) -> None:
    """The first one of them that failed stands for all."""
    run = await world.run(code("a", FAILS, foreach="${{ from_json('[1, 2]') }}"))
    assert _error(run) == "the step a failed: ItemsFailed: 2 of 2 items failed; item 0: ValueError: no such file"
    assert (await world.step(run, "a", 0)).status is StepStatus.FAILED
