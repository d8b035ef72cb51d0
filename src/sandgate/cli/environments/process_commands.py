"""``sandgate process start``, ``list``, ``get``, ``logs``, ``input``, ``signal``, ``wait`` and ``kill``."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sandgate.cli.connection import ProfileOption, connect
from sandgate.cli.environments.names import (
    EnvironmentArgument,
    MetadataOption,
    ProcessArgument,
    find_environment_id,
    find_process_id,
    split_pairs,
)
from sandgate.cli.exits import WrongUsage, exit_code_of_code
from sandgate.cli.printable import one_line
from sandgate.cli.state import JsonOption
from sandgate.cli.streams import follow_to_end
from sandgate.cli.terminal import (
    complain,
    complain_once,
    print_record,
    print_records,
    print_table,
    show_time,
    write_text,
)
from sandgate.core.errors import ProcessNotRunning
from sandgate.sdk.errors import ApiError

if TYPE_CHECKING:
    from sandgate.sdk.answers import Process
    from sandgate.sdk.client import Client

_INPUT_BYTES = 64 * 1024
_TERMINAL_SIZE = (24, 80)
# The longest that one request may wait.
_WAIT_S = 60.0


def start(
    name: EnvironmentArgument,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="PROGRAM…", help="A program and its arguments.", show_default=False)
    ] = None,
    line: Annotated[
        str | None,
        typer.Option("-c", help="A line for a shell, in the place of PROGRAM.", metavar="LINE", show_default=False),
    ] = None,
    called: Annotated[str | None, typer.Option("--name", help="Need not be unique.", show_default=False)] = None,
    metadata: MetadataOption = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", help="An environment variable; again for more.", metavar="NAME=VALUE")
    ] = None,
    cwd: Annotated[str | None, typer.Option("--cwd", help="The folder to begin in.", show_default=False)] = None,
    takes_input: Annotated[bool, typer.Option("--stdin", help="Let it be given input.")] = False,
    terminal: Annotated[bool, typer.Option("--terminal", help="Give it a terminal; see `sandgate terminal`.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", help="Its time limit in seconds; by default it has none.", show_default=False),
    ] = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a command in the background, and print its id.

    Options come before ENVIRONMENT; what comes after it is the command.

    With --json: the process.
    """
    if (line is None) == (not words):
        raise WrongUsage("give a program behind ENVIRONMENT, or a line for a shell with -c")
    labels, variables = split_pairs(metadata or [], "--metadata"), split_pairs(env or [], "--env")
    with connect(profile) as client:
        begun = client.start_process(
            find_environment_id(client, name),
            line if line is not None else words or [],
            env=variables or None,
            cwd=cwd,
            stdin=takes_input,
            pty=_TERMINAL_SIZE if terminal else None,
            timeout_s=timeout,
            name=called,
            metadata=labels or None,
        )
    print_record(begun) if as_json else typer.echo(begun.process_id)


def list_processes(name: EnvironmentArgument, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """List processes of an environment, newest first.

    Those that have ended lately are among them.

    With --json: {"processes": [{"process_id", "name", "command", "status", "exit_code", …}]}.
    """
    with connect(profile) as client:
        rows = client.list_processes(find_environment_id(client, name))
    if as_json:
        print_records("processes", rows)
        return
    cells = [
        (row.name or "", _ending(row), show_time(row.started_at), " ".join(row.command), row.process_id) for row in rows
    ]
    print_table(("name", "status", "started", "command", "id"), cells)


def get(name: EnvironmentArgument, process: ProcessArgument, profile: ProfileOption = None) -> None:
    """Print a process as JSON."""
    with connect(profile) as client:
        print_record(client.get_process(*_find(client, name, process)))


def logs(
    name: EnvironmentArgument,
    process: ProcessArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until it has ended, then end with its exit code.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Send control characters to the terminal as they are.")] = False,
    profile: ProfileOption = None,
) -> None:
    """Print what is kept of a process's output.

    Ctrl-C ends the command, not the process. A server that restarts meanwhile is waited for.
    """
    with connect(profile) as client:
        environment_id, process_id = _find(client, name, process)
        if follow:
            _follow(client, environment_id, process_id, raw=raw)
            raise typer.Exit(exit_code_of_code(client.get_process(environment_id, process_id).exit_code))
        kept = client.read_output(environment_id, process_id)
    for kind, count in kept.skipped.items():
        if count != 0:
            _complain_of_skipped(kind, count)
    write_text(sys.stdout, kept.stdout, raw=raw)
    write_text(sys.stderr, kept.stderr, raw=raw)


def give_input(
    name: EnvironmentArgument,
    process: ProcessArgument,
    eof: Annotated[bool, typer.Option("--eof", help="There is no more input after it.")] = False,
    profile: ProfileOption = None,
) -> None:
    """Give standard input to a process.

    It has to have been started with --stdin or --terminal.
    """
    with connect(profile) as client:
        environment_id, process_id = _find(client, name, process)
        given = 0
        while piece := sys.stdin.buffer.read(_INPUT_BYTES):
            while piece:
                taken = client.write_input(environment_id, process_id, piece)
                given, piece = given + taken, piece[taken:]
        if eof:
            _end_input(client, environment_id, process_id, has_given=given > 0)


def _end_input(client: "Client", environment_id: str, process_id: str, *, has_given: bool) -> None:
    try:
        client.write_input(environment_id, process_id, b"", eof=True)
    except ApiError as error:
        # It may have had enough, and have ended.
        if error.code != ProcessNotRunning.code or not has_given:
            raise


def signal(
    name: EnvironmentArgument,
    process: ProcessArgument,
    which: Annotated[str, typer.Argument(metavar="SIGNAL", help="As SIGINT, or INT.", show_default=False)],
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a signal to a process.

    With --json: the process.
    """
    with connect(profile) as client:
        wanted = which.upper() if which.upper().startswith("SIG") else f"SIG{which.upper()}"
        told = client.signal_process(*_find(client, name, process), wanted)
    _show(told, as_json)


def wait(
    name: EnvironmentArgument,
    process: ProcessArgument,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until a process has ended, and end with its exit code.

    With --json: the process.
    """
    with connect(profile) as client:
        environment_id, process_id = _find(client, name, process)
        found = client.get_process(environment_id, process_id)
        while found.is_live:
            found = client.wait_for_process(environment_id, process_id, _WAIT_S)
    _show(found, as_json)
    raise typer.Exit(exit_code_of_code(found.exit_code))


def kill(
    name: EnvironmentArgument, process: ProcessArgument, profile: ProfileOption = None, as_json: JsonOption = False
) -> None:
    """Kill a process and all that it has started.

    With --json: the process.
    """
    with connect(profile) as client:
        _show(client.kill_process(*_find(client, name, process)), as_json)


def _find(client: "Client", name: str, process: str) -> tuple[str, str]:
    """The ids of the environment and of the process in it."""
    environment_id = find_environment_id(client, name)
    return environment_id, find_process_id(client, environment_id, process)


def _follow(client: "Client", environment_id: str, process_id: str, *, raw: bool) -> None:
    """Print output as it is written, to the end of the process."""
    for event in follow_to_end(lambda last: client.follow_process(environment_id, process_id, last), complain_once()):
        data = json.loads(event.data)
        if event.kind == "skipped":
            _complain_of_skipped(data["stream"], data["characters"])
        elif event.kind in ("stdout", "stderr"):
            write_text(sys.stdout if event.kind == "stdout" else sys.stderr, data["text"], raw=raw)


def _complain_of_skipped(stream: str, characters: int | None) -> None:
    """Say how much of the output is not kept."""
    complain(f"{'some' if characters is None else f'{characters} characters'} of {stream} are missing before this")


def _show(process: "Process", as_json: bool) -> None:
    if as_json:
        print_record(process)
    else:
        typer.echo(one_line(f"{process.process_id}: {_ending(process)}."))


def _ending(process: "Process") -> str:
    """Its status, and how it has ended."""
    if process.error:
        return f"{process.status}: {process.error}"
    if process.signal:
        return f"{process.status} by {process.signal}"
    return process.status if process.exit_code is None else f"{process.status} with {process.exit_code}"
