"""What the code of a workflow's step is given, and what it hands on."""

import json

import pytest

from sandgate.core.execution import ExecutionRequest, StepData, Termination
from sandgate.core.states import ExecutionStatus
from sandgate_agent import wire
from tests.runtime.hosts import Bench


async def _run(bench: Bench, code: str, inputs: object = None, timeout_s: float = 60) -> Termination:
    data = StepData({"x": inputs}, {"SANDGATE_STEP": "first"})
    sandbox = await bench.make()
    return await sandbox.execute(ExecutionRequest(code, timeout_s, data)).wait()


async def test_inputs_come_and_outputs_go(bench: Bench) -> None:
    """As JSON, with the environment variables; also when the code leaves by ``sys.exit()``."""
    value = {"text": "é\U0001f40d\0", "list": [1, 2.5, None, True]}
    for end in ("", "\nimport sys; sys.exit()"):
        code = "import os\noutputs['y'] = [inputs['x'], os.environ['SANDGATE_STEP']]" + end
        ran = await _run(bench, code, value)
        assert (ran.status, ran.stderr) == (ExecutionStatus.COMPLETED, b"")
        assert json.loads(ran.outputs or b"") == {"y": [value, "first"]}


@pytest.mark.parametrize("size", [100_000, wire.OUTPUTS_LIMIT - 10])
async def test_large_outputs(bench: Bench, size: int) -> None:
    """More than a socket holds at once arrives whole, and so do large inputs."""
    ran = await _run(bench, "outputs['y'] = inputs['x']", "x" * size)
    assert json.loads(ran.outputs or b"") == {"y": "x" * size}


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("outputs['y'] = 'x' * 300_000", "is the most"),
        ("outputs['y'] = object()", "outputs has to be JSON"),
        ("outputs['y'] = float('nan')", "outputs has to be JSON"),
        ("outputs = [1]", "outputs has to be a dict"),
    ],
)
async def test_outputs_that_cannot_be_handed_on(bench: Bench, code: str, problem: str) -> None:
    """The step fails, and says what is wrong with them."""
    ran = await _run(bench, code)
    assert (ran.status, ran.outputs) == (ExecutionStatus.FAILED, None)
    assert ran.error is not None
    assert problem in ran.error.value
    assert problem.encode() in ran.stderr


async def test_code_that_fails_hands_on_nothing(bench: Bench) -> None:
    """And its traceback shows its own lines only."""
    ran = await _run(bench, "outputs['y'] = 1\n1 / 0")
    assert (ran.status, ran.outputs) == (ExecutionStatus.FAILED, None)
    assert ran.error is not None
    assert ran.error.name == "ZeroDivisionError"
    assert "child.py" not in ran.error.traceback


async def test_lies_about_outputs_are_cut(bench: Bench) -> None:
    """Code that writes to the channel itself harms its own answer and nothing else."""
    lie = "import os\nos.write(63, b'O' + (1 << 30).to_bytes(4, 'big') + b'x' * 1000)\nos.close(63)"
    ran = await _run(bench, lie)
    assert ran.outputs is None
