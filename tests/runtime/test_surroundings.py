"""What comes with the code: laid out inside, with the powers of the code, and gone with it but for files."""

import pytest

from sandgate.core.execution import ExecutionRequest, InputFile, Surroundings, Termination
from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.base import Sandbox
from tests.runtime.hosts import Bench, available_versions

PRINT = "import os, sys\n"


async def _run(sandbox: Sandbox, code: str, around: Surroundings) -> Termination:
    return await sandbox.execute(ExecutionRequest(PRINT + code, 20, around=around)).wait()


@pytest.mark.needs_root_namespaces
@pytest.mark.parametrize("version", available_versions())
@pytest.mark.few_on_gvisor(version=[available_versions()[0], available_versions()[-1]])
async def test_as_a_program_finds_it(walled: Bench, version: str) -> None:
    """Every version reads lines, arguments and the folder as it does when it is started with them."""
    sandbox = await walled.make(version)
    code = (
        "import mine\nprint(input(), sys.stdin.readline().strip(), sys.stdin.isatty(), sys.argv[1:], os.getcwd())\n"
        "print(mine.VALUE, os.environ['PWD'], os.path.dirname(sys.argv[0]), os.popen('cat; pwd; echo $X').read())"
    )
    around = Surroundings(
        "a\nb\nc\n", {"X": "\N{SNOWMAN}"}, "sub", ("", "-x"), (InputFile("sub/mine.py", b"VALUE = 5"),)
    )
    ran = await _run(sandbox, code, around)
    assert ran.stderr == b""
    lines = ran.stdout.decode().splitlines()
    assert lines[0] == "a b False ['', '-x'] /workspace/sub"
    # Standard input was read ahead, as that of a program is.
    assert lines[1:] == ["5 /workspace/sub /workspace/sub /workspace/sub", "\N{SNOWMAN}", ""]


async def test_nothing_is_left_but_files(bench: Bench) -> None:
    """The next execution has its own variables, arguments, folder and standard input."""
    sandbox = await bench.make()
    files = (InputFile("kept", bytes(range(256))),)
    await _run(sandbox, "os.mkdir('d')", Surroundings("secret", {"TOKEN": "secret"}, None, ("secret",), files))
    answer = await bench.ask(
        sandbox,
        "import os, sys\nkept = open('kept', 'rb').read().hex()\n"
        "answer = [sys.argv[1:], 'TOKEN' in os.environ, sys.stdin.read(), kept, os.path.basename(os.getcwd())]",
    )
    assert answer == [[], False, "", bytes(range(256)).hex(), "workspace"]


@pytest.mark.needs_root_namespaces
@pytest.mark.parametrize(
    ("around", "name"),
    [
        (Surroundings(cwd="nowhere"), "FileNotFoundError"),
        (Surroundings(cwd="a-file"), "NotADirectoryError"),
        (Surroundings(files=(InputFile("a-file/below", b""),)), "FileExistsError"),
        (Surroundings(files=(InputFile("pipe", b"x"),)), "OSError"),
        (Surroundings(files=(InputFile("x" * 300, b"x"),)), "OSError"),
        (Surroundings(files=(InputFile("/usr/mine", b"x"),)), "OSError"),
    ],
)
async def test_what_cannot_be_laid_out_is_said(walled: Bench, around: Surroundings, name: str) -> None:
    """As an error of the code, which does not run, without a line of the product's."""
    sandbox = await walled.make()
    await walled.run(sandbox, "import os\nopen('a-file', 'w').close()\nos.mkfifo('pipe')")
    ran = await _run(sandbox, "print('ran')", around)
    assert (ran.status, ran.exit_code, ran.stdout) == (ExecutionStatus.FAILED, 1, b"")
    assert ran.error is not None
    # On what is read-only for the kernel, or for the user only.
    assert ran.error.name in ({name, "PermissionError"} if walled.on_gvisor else {name})
    assert "sandgate" not in ran.error.traceback
    assert await walled.works(sandbox)


@pytest.mark.needs_root_namespaces
async def test_a_full_disk_is_an_error_of_the_code(walled: Bench) -> None:
    """Files that do not fit are no fault of the service's."""
    sandbox = await walled.make(limits=Limits(disk_bytes=MIB))
    ran = await _run(sandbox, "print('ran')", Surroundings(files=(InputFile("big", bytes(2 * MIB)),)))
    assert ran.error is not None
    assert (ran.status, "No space left" in ran.error.value) == (ExecutionStatus.FAILED, True)


async def test_standard_input_of_a_megabyte(bench: Bench) -> None:
    """Comes whole, whatever the socket holds at once."""
    sandbox = await bench.make()
    ran = await _run(sandbox, "print(len(sys.stdin.read()))", Surroundings("x" * MIB))
    assert ran.stdout == b"1048576\n"
