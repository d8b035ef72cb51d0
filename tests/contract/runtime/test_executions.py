"""What every runtime promises of code that it runs."""

import asyncio
import json

import pytest

from sandgate.core.errors import SandboxFailed, TooManyExecutions
from sandgate.core.execution import ExecutionRequest, InputFile, StepData, Surroundings
from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.base import RunningExecution
from tests.contract.runtime.conftest import Subject

LOOP = "while True: pass"
DATA = StepData({"x": [1, "two"]}, {"SANDGATE_ATTEMPT": "1"})


async def test_output_and_end(subject: Subject) -> None:
    """Output comes apart and whole, with the exit code and how long it took."""
    sandbox = await subject.create()
    ran = await subject.run(sandbox, "import sys\nprint('out')\nprint('err', file=sys.stderr)")
    assert (ran.status, ran.exit_code, ran.stdout, ran.stderr) == (ExecutionStatus.COMPLETED, 0, b"out\n", b"err\n")
    assert (ran.error, ran.outputs, ran.stdout_truncated) == (None, None, False)
    assert ran.duration_s >= 0
    assert ran.usage.peak_memory_bytes > 0


@pytest.mark.parametrize(
    ("code", "exit_code", "name", "value"),
    [
        ("raise ValueError('bad')", 1, "ValueError", "bad"),
        ("import sys\nsys.exit(3)", 3, "SystemExit", "3"),
        ("print('no end", 1, "SyntaxError", ""),
    ],
)
async def test_failures(subject: Subject, code: str, exit_code: int, name: str, value: str) -> None:
    """The error says what went wrong; the sandbox works on."""
    sandbox = await subject.create()
    ran = await subject.run(sandbox, code)
    assert (ran.status, ran.exit_code) == (ExecutionStatus.FAILED, exit_code)
    assert ran.error is not None
    assert ran.error.name == name
    assert value in ran.error.value
    assert (await subject.run(sandbox, "print('on')")).stdout == b"on\n"


async def test_output_beyond_the_cap(subject: Subject) -> None:
    """The kept part is exact, and that it is one is said."""
    sandbox = await subject.create(limits=Limits(output_bytes=1024))
    ran = await subject.run(sandbox, "print('x' * 5000, end='')\nprint('done')")
    assert (ran.status, ran.stdout, ran.stdout_truncated) == (ExecutionStatus.COMPLETED, b"x" * 1024, True)


async def test_time_limit(subject: Subject) -> None:
    """What was printed before is there; the sandbox works on."""
    sandbox = await subject.create()
    ran = await subject.run(sandbox, f"print('begun', flush=True)\n{LOOP}", 0.3)
    assert (ran.status, ran.exit_code, ran.error) == (ExecutionStatus.TIMED_OUT, None, None)
    assert ran.duration_s >= 0.3
    assert (await subject.run(sandbox, "print('on')")).stdout == b"on\n"


async def test_cancel(subject: Subject) -> None:
    """Once and again, while it runs and after; what has ended stays as it ended."""
    sandbox = await subject.create()
    running = sandbox.execute(ExecutionRequest(LOOP, 60))
    waiting = [asyncio.ensure_future(running.wait()) for _each in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    running.cancel()
    running.cancel()
    assert (await waiting[1]).status is ExecutionStatus.CANCELLED
    assert (await running.wait()).status is ExecutionStatus.CANCELLED
    done = sandbox.execute(ExecutionRequest("print('done')", 20))
    ended = await done.wait()
    done.cancel()
    assert await done.wait() == ended
    assert ended.status is ExecutionStatus.COMPLETED


async def test_data(subject: Subject) -> None:
    """Inputs and variables come in, outputs go out as JSON."""
    sandbox = await subject.create()
    code = "import os\noutputs['x'] = inputs['x']\noutputs['n'] = os.environ['SANDGATE_ATTEMPT']"
    ran = await subject.run(sandbox, code, data=DATA)
    assert ran.status is ExecutionStatus.COMPLETED
    assert json.loads(ran.outputs or b"") == {"x": [1, "two"], "n": "1"}


async def test_outputs_of_code_that_says_nothing(subject: Subject) -> None:
    """Are empty when it completes, and not there when it fails."""
    sandbox = await subject.create()
    assert json.loads((await subject.run(sandbox, "pass", data=DATA)).outputs or b"") == {}
    code = "import os\nif os.environ['SANDGATE_ATTEMPT'] == '1':\n    raise ValueError('once')\noutputs['y'] = 1"
    assert (await subject.run(sandbox, code, data=DATA)).outputs is None
    again = await subject.run(sandbox, code, data=StepData({}, {"SANDGATE_ATTEMPT": "2"}))
    assert json.loads(again.outputs or b"") == {"y": 1}


async def test_surroundings(subject: Subject) -> None:
    """Arguments, variables, standard input and files are there when the code begins; the next one finds files only."""
    sandbox = await subject.create()
    files = (InputFile("in/a.txt", "\N{SNOWMAN}".encode()), InputFile("in/deep/b.txt", b"b"))
    around = Surroundings("line\n", {"MODE": "test"}, "in", ("one", "two words"), files)
    code = (
        "import os, sys\nprint(sys.argv[1], sys.argv[2], os.environ['MODE'], open('a.txt').read(), "
        "open('deep/b.txt').read())\nprint(sys.stdin.read(), end='')"
    )
    ran = await sandbox.execute(ExecutionRequest(code, 20, around=around)).wait()
    assert (ran.status, ran.stderr) == (ExecutionStatus.COMPLETED, b"")
    assert ran.stdout.decode() == "one two words test \N{SNOWMAN} b\nline\n"
    assert (await subject.run(sandbox, "print('on')")).stdout == b"on\n"


async def test_side_by_side_up_to_the_limit(subject: Subject) -> None:
    """Those beyond it wait their turn, in order, and can be cancelled while they wait."""
    sandbox = await subject.create(limits=Limits(concurrent_executions=1))
    first = sandbox.execute(ExecutionRequest(LOOP, 60))
    second, third = (sandbox.execute(ExecutionRequest(f"print('{name}')", 20)) for name in ("second", "third"))
    second.cancel()
    assert (await second.wait()).status is ExecutionStatus.CANCELLED
    first.cancel()
    assert (await first.wait()).status is ExecutionStatus.CANCELLED
    assert (await third.wait()).stdout == b"third\n"


async def test_a_full_queue_is_refused(subject: Subject) -> None:
    """And nothing that waits is harmed."""
    sandbox = await subject.create(limits=Limits(concurrent_executions=1))
    taken: list[RunningExecution] = []

    def fill() -> None:
        while len(taken) < 1000:
            taken.append(sandbox.execute(ExecutionRequest(LOOP, 60)))

    with pytest.raises(TooManyExecutions):
        fill()
    for execution in reversed(taken):
        execution.cancel()
    assert {(await execution.wait()).status for execution in taken} == {ExecutionStatus.CANCELLED}


async def test_out_of_memory(subject: Subject) -> None:
    """Is told apart from other failures where the class can hold the limit; the sandbox works on."""
    sandbox = await subject.create(limits=Limits(memory_bytes=64 * MIB, disk_bytes=32 * MIB))
    ran = await subject.run(sandbox, "bytearray(1024 * 1024 * 1024)")
    assert ran.status in (ExecutionStatus.OUT_OF_MEMORY, ExecutionStatus.FAILED)
    assert (await subject.run(sandbox, "print('on')")).stdout == b"on\n"


async def test_an_ended_sandbox_takes_nothing(subject: Subject) -> None:
    """What ran in it is lost, and says so to whoever waits."""
    sandbox = await subject.create()
    running = sandbox.execute(ExecutionRequest(LOOP, 60))
    await subject.runtime.destroy(sandbox.environment_id)
    assert (await running.wait()).status is ExecutionStatus.LOST
    assert sandbox.failure is not None
    with pytest.raises(SandboxFailed):
        sandbox.execute(ExecutionRequest("pass", 1))
    with pytest.raises(SandboxFailed):
        await sandbox.extend(1)
