"""``sandgate run``: code from this machine in an environment, with its output as it comes."""

import json
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandgate.cli.connection import ProfileOption, connect
from sandgate.cli.environments.given_code import (
    ArgumentsArgument,
    CodeOption,
    FileArgument,
    FilesOption,
    FolderOption,
    InputOption,
    LanguageOption,
    MadeFromOption,
    SessionOption,
    TimeoutOption,
    VariablesOption,
    WhereOption,
    language_of,
    read_code,
    read_files,
    read_input,
)
from sandgate.cli.environments.life_commands import DEFAULT_TEMPLATE, AllowOption, IsolationOption
from sandgate.cli.environments.names import find_environment_id, find_snapshot_id, split_pairs
from sandgate.cli.environments.snapshot_commands import BeginWithOption
from sandgate.cli.environments.volume_commands import MountOption, read_mounts
from sandgate.cli.exits import EXIT_REFUSED, EXIT_UNREACHABLE, WrongUsage, exit_code_of_code
from sandgate.cli.state import JsonOption
from sandgate.cli.terminal import print_record, write_text
from sandgate.core.states import ExecutionStatus, Isolation

if TYPE_CHECKING:
    from sandgate.sdk.client import Client
    from sandgate.sdk.environments import CodeOptions
    from sandgate.sdk.events import ServerEvent
    from sandgate.sdk.volumes import Mount

_DEFAULT_TIMEOUT_S = 30.0
# What is made for one run outlives it by no more, should this command be killed.
_SLACK_S = 120
_LONGEST_LIFETIME_S = 86_400
# As `timeout` and the shell say it.
_EXIT_TIMED_OUT, _EXIT_KILLED = 124, 137
_ENDINGS = {
    ExecutionStatus.TIMED_OUT: (_EXIT_TIMED_OUT, "the time of the code was over"),
    ExecutionStatus.OUT_OF_MEMORY: (_EXIT_KILLED, "the code wanted more memory than the environment has"),
    ExecutionStatus.OUTPUT_LIMIT: (EXIT_REFUSED, "the code wrote more than it may"),
    ExecutionStatus.CANCELLED: (EXIT_REFUSED, "the code was cancelled"),
    ExecutionStatus.LOST: (EXIT_UNREACHABLE, "the code was lost with its environment or its server"),
}


def run(
    file: FileArgument = None,
    arguments: ArgumentsArgument = None,
    code: CodeOption = None,
    environment: WhereOption = None,
    template: MadeFromOption = None,
    snapshot: BeginWithOption = None,
    volume: MountOption = None,
    allow: AllowOption = None,
    isolation: IsolationOption = None,
    session: SessionOption = None,
    language: LanguageOption = None,
    env: VariablesOption = None,
    given: FilesOption = None,
    cwd: FolderOption = None,
    with_input: InputOption = False,
    timeout: TimeoutOption = None,
    raw: Annotated[bool, typer.Option("--raw", help="Send control characters to the terminal as they are.")] = False,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run code in an environment, and show its output.

    Output is shown as it is written. Without --environment one is made for this run.

    The exit code is that of the code; 124 when its time was over, 137 when it wanted too much memory. Ctrl-C cancels
    it. Options come before FILE; what comes after it is for the code.

    With --json: the execution, once it has ended.
    """
    wanted = _Wanted(template, snapshot, tuple(read_mounts(volume or [])), tuple(allow or ()), isolation)
    if environment is not None and wanted != _Wanted():
        options_of_new = "--template, --snapshot, --volume, --allow and --isolation"
        raise WrongUsage(f"{options_of_new} are for an environment that is made for this run")
    if session is not None and environment is None:
        raise WrongUsage("--session needs --environment")
    source, words = read_code(file, arguments or [], code, with_input=with_input)
    options: CodeOptions = {
        "session_id": session,
        "language": language or (None if code is not None or session else language_of(file)),
        "stdin": read_input() if with_input else None,
        "env": split_pairs(env or [], "--env") or None,
        "args": words or None,
        "files": read_files(given or []) or None,
        "cwd": cwd,
        "timeout_s": timeout,
    }
    with connect(profile) as client, _place(client, environment, timeout, wanted) as environment_id:
        if as_json:
            execution = client.execute(environment_id, source, **options)
            print_record(execution)
            ended: Mapping[str, Any] = execution.model_dump()
        else:
            ended = _show(client.stream_execution(environment_id, source, **options), raw=raw)
    raise typer.Exit(_exit_code(ended))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What an environment that is made for this has to have."""

    template: str | None = None
    snapshot: str | None = None
    volumes: "Sequence[Mount]" = ()
    allow: Sequence[str] = ()
    isolation: Isolation | None = None


@contextmanager
def _place(client: "Client", name: str | None, timeout_s: float | None, wanted: _Wanted) -> Iterator[str]:
    """The environment that is named, or one for the time of this."""
    if name is not None:
        yield find_environment_id(client, name)
        return
    lifetime_s = min(_LONGEST_LIFETIME_S, int(timeout_s or _DEFAULT_TIMEOUT_S) + _SLACK_S)
    made = client.create_environment(
        "run",
        wanted.template or (None if wanted.snapshot else DEFAULT_TEMPLATE),
        snapshot_id=find_snapshot_id(client, wanted.snapshot) if wanted.snapshot else None,
        timeout_s=lifetime_s,
        isolation=wanted.isolation,
        allow=wanted.allow or None,
        volumes=wanted.volumes or None,
    )
    try:
        yield made.environment_id
    finally:
        client.delete_environment(made.environment_id)


def _show(events: "Generator[ServerEvent, None, None]", *, raw: bool) -> Mapping[str, Any]:
    """Print output and results as they come; the execution as it ended."""
    with closing(events) as told:
        for event in told:
            data = json.loads(event.data)
            if event.kind in ("stdout", "stderr"):
                write_text(sys.stdout if event.kind == "stdout" else sys.stderr, data["text"], raw=raw)
            elif event.kind == "result":
                write_text(sys.stdout, _describe(data["result"]), raw=raw)
            elif event.kind == "finished":
                return dict(data)
    return {"status": ExecutionStatus.LOST}


def _describe(bundle: Mapping[str, Any]) -> str:
    """A result for a terminal, which shows texts only."""
    text = bundle.get("text/plain")
    return f"{text}\n" if isinstance(text, str) else f"[{', '.join(map(str, bundle))}]\n"


def _exit_code(ended: Mapping[str, Any]) -> int:
    """What this command ends with; says why, where the code itself has not."""
    status = ended["status"]
    if status in _ENDINGS:
        code, why = _ENDINGS[status]
        sys.stderr.write(f"sandgate: {why}\n")
        return code
    return exit_code_of_code(ended.get("exit_code"))
