"""The files of a workflow's step: what the code finds in them, and what it may do to them."""

import json
from typing import Any

import pytest

from sandgate.core.execution import ExecutionRequest, StepData, Termination
from sandgate.core.states import ExecutionStatus
from sandgate_agent import wire
from tests.runtime.hosts import Bench, available_versions

IN, OUT, LEFT = (f"os.environ['SANDGATE_{name}']" for name in ("INPUTS", "OUTPUTS", "ARTIFACTS"))
VALUE = {"text": "é\U0001f40d\0", "list": [1, 2.5, None, True]}


async def _run(bench: Bench, code: str, inputs: Any = None, version: str | None = None) -> Termination:
    sandbox = await bench.make(version)
    return await sandbox.execute(ExecutionRequest("import json, os\n" + code, 60, StepData({"x": inputs}, {}))).wait()


@pytest.mark.parametrize("version", available_versions())
@pytest.mark.few_on_gvisor(version=[available_versions()[0]])
async def test_the_inputs_are_in_a_file(bench: Bench, version: str) -> None:
    """As JSON, for every program that the code starts, on every version."""
    program = 'import json, os; print(json.load(open(os.environ["SANDGATE_INPUTS"]))["x"]["list"])'
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {program!r}], check=True)"
    ran = await _run(bench, code, VALUE, version)
    assert (ran.status, ran.stdout) == (ExecutionStatus.COMPLETED, b"[1, 2.5, None, True]\n"), ran


async def test_outputs_may_be_written_to_a_file(bench: Bench) -> None:
    """By any program; the dict is laid over it key by key."""
    ran = await _run(bench, "os.system('echo \\'{\"a\": 1, \"b\": 2}\\' > $SANDGATE_OUTPUTS')\noutputs['b'] = 3")
    assert json.loads(ran.outputs or b"") == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (f"open({OUT}, 'w').write('[1]')", "has to hold an object, not list"),
        (f"open({OUT}, 'w').write('x')", "is not JSON"),
        (f"open({OUT}, 'w').write('{{\"x\": NaN}}')", "is not JSON: NaN"),
        (f"open({OUT}, 'w').write('[' * 100000)", "is not JSON"),
        (f"open({OUT}, 'wb').write(b'\\xff')", "is not UTF-8"),
        (f"open({OUT}, 'w').write(json.dumps(dict(x='x' * 262_144)))", "is longer than 262144 bytes"),
        (f"open({OUT}, 'w').truncate(1 << 27)", "is longer than 262144 bytes"),
        (f"open({OUT}, 'w').write(json.dumps(dict(x='x' * 150_000)))\noutputs['y'] = 'y' * 150_000", "is the most"),
        (f"os.mkdir({OUT})", "is not a regular file"),
        (f"os.mkfifo({OUT})", "is not a regular file"),
        (f"os.symlink('/dev/zero', {OUT})", "cannot be read"),
        (f"import socket; socket.socket(socket.AF_UNIX).bind({OUT})", "cannot be read"),
        (f"open({OUT}, 'w').write('{{}}'); os.chmod({OUT}, 0)", "cannot be read"),
    ],
)
async def test_a_file_that_cannot_be_taken_fails_the_step(bench: Bench, code: str, problem: str) -> None:
    """At once, and with what is wrong with it."""
    ran = await _run(bench, code)
    assert (ran.status, ran.outputs) == (ExecutionStatus.FAILED, None)
    assert ran.error is not None
    assert problem in ran.error.value, ran.error


async def test_without_its_folder_a_step_still_ends(bench: Bench) -> None:
    """Code may take away what it was given, or write nothing into it."""
    for code in (f"os.unlink({IN}); os.rmdir({LEFT})", f"open({OUT}, 'w').close()"):
        ran = await _run(bench, code)
        assert (ran.status, ran.outputs, ran.left_files) == (ExecutionStatus.COMPLETED, b"{}", False)


async def test_it_is_known_whether_files_were_left(bench: Bench) -> None:
    """Also those of the last moment; who cannot say it is not believed to have none."""
    write = f"open({LEFT} + '/x', 'w').close()"
    for code, left in (
        ("pass", False),
        (write, True),
        (write + "\n1 / 0", True),
        ("1 / 0", False),
        (f"import atexit; atexit.register(lambda folder={LEFT}: open(folder + '/x', 'w'))", True),
        ("import sys; sys.exit(3)", False),
        ("os._exit(0)", True),
        ("os.close(63)", True),
        ("os.kill(os.getpid(), 9)", True),
        ("if os.fork(): os.wait()", False),
    ):
        assert (await _run(bench, code)).left_files is left, code


async def test_nothing_of_a_step_stays_in_a_shared_environment(bench: Bench) -> None:
    """Inputs may hold secrets, so that the next step finds no trace of them; code that is no step has no files."""
    sandbox = await bench.make()
    for _round in range(2):
        await sandbox.execute(ExecutionRequest("pass", 60, StepData({"x": 1}, {}))).wait()
    answer = await bench.ask(
        sandbox,
        "import os\nfolder = os.environ.get('TMPDIR', '/tmp')\n"
        "answer = [os.listdir(folder), [name for name in os.environ if 'SANDGATE' in name]]",
    )
    assert answer == [[], []]


def test_the_last_word_is_told_from_what_was_said_before() -> None:
    """A report never ends like it, and a child that does not come to it may have left files."""
    report = wire.pack_report("Error", "\x01", "\x02")
    assert wire.split_ending(report) == (report, None)
    assert wire.split_ending(report + wire.LEFT_NOTHING) == (report, False)
    assert wire.split_ending(report + wire.LEFT_FILES) == (report, True)
    assert wire.split_ending(b"") == (b"", None)
