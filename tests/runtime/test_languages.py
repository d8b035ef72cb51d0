"""Code of other languages runs as a file of its own does, with all that comes with code, and is as much gone after."""

import asyncio
from pathlib import Path

import pytest

from sandgate.core.execution import ExecutionRequest, InputFile, Surroundings, Termination
from sandgate.core.language import Language
from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus
from sandgate.core.tidying import removal_after, remove
from sandgate.sandbox.base import Sandbox
from tests.runtime.hosts import Bench, available_versions

BASH = Language("bash", (("bash",), ("sh",)), ".sh")


async def _run(
    sandbox: Sandbox, code: str, language: Language = BASH, around: Surroundings | None = None, timeout_s: float = 60.0
) -> Termination:
    return await sandbox.execute(ExecutionRequest(code, timeout_s, around=around, language=language)).wait()


async def test_a_shell_script_is_as_in_a_file(bench: Bench) -> None:
    """Arguments, variables, folder, standard input and files are there, and nothing of it is left but files."""
    sandbox = await bench.make()
    code = (
        'cd "$(dirname "$0")"\n. ./lib.sh\n'
        'echo "$(basename "$0") $# $2 $MODE $(basename "$PWD") $GREETING"\nread a\ncat'
    )
    files = (InputFile("sub/lib.sh", b"GREETING=hello\n"),)
    around = Surroundings("one\ntwo\n", {"MODE": "test"}, "sub", ("a", "b c"), files)
    ran = await _run(sandbox, code, around=around)
    assert (ran.stderr, ran.exit_code) == (b"", 0)
    assert ran.stdout == b".sandgate-code.sh 2 b c test sub hello\ntwo\n"
    assert await bench.ask(sandbox, "import os\nanswer = sorted(os.listdir('sub'))") == ["lib.sh"]


async def test_ends_are_those_of_the_program(bench: Bench) -> None:
    """Exit codes, signals, and the number of a line that is wrong."""
    sandbox = await bench.make()
    ended = await _run(sandbox, "exit 7")
    assert (ended.status, ended.exit_code) == (ExecutionStatus.FAILED, 7)
    assert ended.error is not None
    assert ended.error.name == "NonZeroExit"
    killed = await _run(sandbox, "kill -TERM $$")
    assert killed.error is not None
    assert (killed.exit_code, killed.error.value) == (143, "ended by SIGTERM")
    wrong = await _run(sandbox, "true\n\nno-such-command")
    assert (wrong.exit_code, b".sandgate-code.sh: " in wrong.stderr, b"3: " in wrong.stderr) == (127, True, True)


@pytest.mark.parametrize("version", available_versions())
@pytest.mark.few_on_gvisor(version=[available_versions()[-1]])
async def test_what_cannot_be_run_is_named(bench: Bench, version: str) -> None:
    """In every interpreter, and nothing is left of having said so."""
    sandbox = await bench.make(version)
    ran = await _run(sandbox, "x", Language("odd", (("no-such-program",),), ".odd"))
    assert ran.error is not None
    assert (ran.error.name, "'no-such-program'" in ran.error.value) == ("FileNotFoundError", True)
    assert ran.stderr.endswith(b"no such program in PATH: 'no-such-program'\n"), ran.stderr
    assert await bench.ask(sandbox, "import os, tempfile\nanswer = os.listdir(tempfile.gettempdir())") == []


@pytest.mark.needs_root_namespaces
async def test_the_command_of_a_language_is_filled_in(standard: Bench) -> None:
    """The first command whose program is there runs, with the file where it says, and arguments behind."""
    sandbox = await standard.make()
    odd = Language("odd", (("no-such-program",), ("sh", "-c", 'echo "$0 $1"; cat "$0"', "{file}")), ".odd")
    ran = await _run(sandbox, "text", odd, Surroundings(args=("an argument",)))
    assert ran.stdout == b"/workspace/.sandgate-code.odd an argument\ntext"
    missing = await _run(sandbox, "text", Language("none", (("no-such-program",),)))
    assert missing.error is not None
    assert (missing.exit_code, missing.error.name) == (1, "FileNotFoundError")
    assert "sandgate" not in missing.error.traceback


@pytest.mark.needs_root_namespaces
async def test_one_after_another_and_side_by_side(standard: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a file of its own; what a killed one left is taken by the next, a file of the user's never."""
    sandbox = await standard.make()
    killed = sandbox.execute(ExecutionRequest("touch begun; sleep 100", 60.0, language=BASH))
    await standard.run(sandbox, "import os, time\nwhile not os.path.exists('begun'): time.sleep(0.01)")
    # It answers when all of it is dead, however long the kernel takes: until then its file is its own.
    monkeypatch.setattr("sandgate.sandbox.execution._CONFIRM_S", 20.0)
    killed.cancel()
    assert (await killed.wait()).status is ExecutionStatus.CANCELLED
    left = "import os\nanswer = sorted(name for name in os.listdir() if name.startswith('.sandgate'))"
    assert await standard.ask(sandbox, left) == [".sandgate-code.sh"]
    await standard.run(sandbox, "import os\nos.symlink('/etc/passwd', '.sandgate-code-2.sh')")
    codes = [f'while [ ! -e go ]; do sleep 0.01; done; echo "{number} $0"' for number in range(3)]
    running = [asyncio.ensure_future(_run(sandbox, code)) for code in codes]
    count = "len([name for name in os.listdir() if name.startswith('.sandgate')])"
    await standard.run(sandbox, f"import os, time\nwhile {count} < 4: time.sleep(0.01)")
    await standard.run(sandbox, "open('go', 'w').close()")
    ends = await asyncio.gather(*running)
    assert [end.stdout[:1] for end in ends] == [b"0", b"1", b"2"]
    assert len({end.stdout[2:] for end in ends}) == len(ends)
    assert await standard.ask(sandbox, left) == [".sandgate-code-2.sh"]


async def test_what_killed_ones_left_is_removed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what somebody runs, and for what only has such a name."""
    sandbox = await bench.make()
    lasting = ExecutionRequest("touch there; while [ ! -e go ]; do sleep 0.01; done; echo $0", 60.0, language=BASH)
    running = sandbox.execute(lasting)
    killed = sandbox.execute(ExecutionRequest("sleep 100", 60.0, language=BASH))
    look = "import os, time\nnames = lambda: sorted(each for each in os.listdir() if each.startswith('.sandgate'))\n"
    both = "while len(names()) < 2 or not os.path.exists('there'): time.sleep(0.01)\nanswer = names()"
    left = await bench.ask(sandbox, look + both)
    # It answers when all of it is dead, however long the kernel takes.
    monkeypatch.setattr("sandgate.sandbox.execution._CONFIRM_S", 20.0)
    killed.cancel()
    await killed.wait()
    await bench.run(sandbox, "open('.sandgate-code-mine.sh', 'w').close()")
    removal = removal_after(lasting)
    assert removal is not None
    await remove(sandbox.execute, removal)
    now = await bench.ask(sandbox, look + "answer = names()")
    await bench.run(sandbox, "open('go', 'w').close()")
    used = (await running.wait()).stdout.decode().strip().rpartition("/")[2]
    assert set(now) == {".sandgate-code-mine.sh", used}
    assert set(left) - {used} == {".sandgate-code.sh", ".sandgate-code-2.sh"} - {used}


@pytest.mark.needs_root_namespaces
async def test_where_nothing_can_be_written(standard: Bench) -> None:
    """The file is then with the temporary ones."""
    sandbox = await standard.make()
    ran = await _run(sandbox, 'echo "$0 $PWD"', around=Surroundings(cwd="/usr"))
    assert ran.stdout == b"/tmp/.sandgate-code.sh /usr\n"


@pytest.mark.needs_root_namespaces
async def test_no_signal_is_ignored(standard: Bench) -> None:
    """A program whose reader has gone ends, as it does in a shell."""
    sandbox = await standard.make()
    ran = await _run(sandbox, "yes | head -n 1; grep SigIgn /proc/self/status")
    written, _, ignored = ran.stdout.partition(b"\nSigIgn:")
    assert written == b"y"
    # The C library has two for its own use beyond the ordinary ones.
    assert int(ignored, 16) & 0x7FFF_FFFF == 0


@pytest.mark.needs_root_namespaces
@pytest.mark.skipif(not Path("/usr/bin/node").exists(), reason="node was not found; install the package nodejs")
async def test_javascript_finds_what_came_with_it(walled: Bench) -> None:
    """Modules beside it, arguments and input, as a file that node was given does."""
    sandbox = await walled.make(limits=Limits(memory_bytes=1024 * MIB))
    code = (
        "const lib = require('./lib.js');\n"
        "console.log(lib.value, process.argv[2], require('fs').readFileSync(0, 'utf8'));\nnot_there();"
    )
    around = Surroundings("input", {}, "sub", ("arg",), (InputFile("sub/lib.js", b"exports.value = 5"),))
    ran = await _run(sandbox, code, Language("javascript", (("node",),), ".js"), around)
    assert (ran.stdout, ran.exit_code) == (b"5 arg input\n", 1)
    assert b"/workspace/sub/.sandgate-code.js:3" in ran.stderr
