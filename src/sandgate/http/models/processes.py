"""Processes in the background of environments, as clients ask for them and get to read of them."""

import signal
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sandgate.core.command import TerminalSize
from sandgate.core.process import Process, ProcessStatus
from sandgate.environments.active_process import Kept
from sandgate.environments.following import SKIPPED
from sandgate.environments.process_output import ProcessEvent, ProcessEvents
from sandgate.environments.processes import NewProcess
from sandgate.http.models.base import Model
from sandgate.http.models.environments import UsageAnswer
from sandgate.http.models.parts import Cursor, Whole, with_example
from sandgate.http.models.requests import NO_NUL, EnvironmentName, GivenVariables, Metadata, WorkFolder, example
from sandgate.http.streaming import ServerEvent

_PROCESS_ID = "proc-06evrhxr2g000r2s7n0cymq3kd"
_PROCESS: dict[str, Any] = {
    "process_id": _PROCESS_ID,
    "environment_id": "env-06evrhxq8g000wmabyzsqnd3wf",
    "status": "running",
    "command": ["python3", "-m", "http.server", "8000"],
    "name": "web",
    "metadata": {},
    "cwd": None,
    "stdin": False,
    "pty": None,
    "timeout": None,
    "started_at": "2026-01-01T00:00:00Z",
    "ended_at": None,
    "exit_code": None,
    "signal": None,
    "error": None,
    "usage": None,
}
PROCESS_EVENTS_EXAMPLE = (
    f'id: 0-0.0\nevent: started\ndata: {{"process_id":"{_PROCESS_ID}","status":"running"}}\n\n'
    'id: 0-8.0\nevent: stdout\ndata: {"text":"serving\\n"}\n\n'
    f'id: 0-8.0\nevent: finished\ndata: {{"process_id":"{_PROCESS_ID}","status":"exited","exit_code":0}}\n\n'
)
# An interactive one where there is a shell that can be.
_SHELL = "exec $0 -i"


def _digits(value: Any) -> Any:
    """A number in an address."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6 else value


_SideInAddress = Annotated[int, BeforeValidator(_digits), Field(ge=1, le=1000)]
_Text = Annotated[str, Field(json_schema_extra={"pattern": NO_NUL})]
_Side = Annotated[int, Field(ge=1, le=1000), Whole]

SIGNALS = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGCONT", "SIGSTOP", "SIGTSTP")
"""What can be sent: what people send to programs, and nothing that only a kernel has a reason for."""


class TerminalWanted(Model):
    """The size of a terminal, in characters."""

    model_config = example({"rows": 24, "cols": 80})

    rows: _Side
    cols: _Side

    def size(self) -> TerminalSize:
        """For the use case."""
        return TerminalSize(self.rows, self.cols)


class StartProcess(Model):
    """A command to run in the background: either `argv` or `command` has to be there."""

    model_config = example(
        {"argv": ["python3", "-m", "http.server", "8000"], "name": "web"},
        {"command": "tail -f log | grep --line-buffered error", "stdin": False, "timeout": 600},
        {"command": "exec bash -i", "pty": {"rows": 24, "cols": 80}},
    )

    argv: Annotated[list[_Text] | None, Field(min_length=1, max_length=256, description="A program and its words.")] = (
        None
    )
    command: Annotated[
        str | None,
        Field(min_length=1, description="A line for `bash`, or `sh`.", json_schema_extra={"pattern": NO_NUL}),
    ] = None
    env: GivenVariables | None = None
    cwd: WorkFolder | None = None
    stdin: Annotated[bool, Field(description="Whether it can be given input. One with a terminal always can.")] = False
    pty: Annotated[TerminalWanted | None, Field(description="Give it a terminal of this size.")] = None
    timeout: Annotated[
        float | None, Field(ge=0.1, le=86_400, description="Seconds; by default it lives as long as the environment.")
    ] = None
    name: EnvironmentName | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _check_command(self) -> Self:
        if (self.argv is None) == (self.command is None):
            raise ValueError("has to have either argv or command")
        if self.argv and not self.argv[0]:
            raise ValueError("argv has to begin with the name of a program")
        return self

    def wanted(self) -> NewProcess:
        """For the use case."""
        return NewProcess(
            argv=self.argv or (),
            line=self.command,
            env=self.env or {},
            cwd=self.cwd,
            takes_input=self.stdin,
            terminal=None if self.pty is None else self.pty.size(),
            timeout_s=self.timeout,
            name=self.name,
            metadata=self.metadata or {},
        )


class ShellWanted(Model):
    """A terminal for a command, by default a shell."""

    model_config = example({"rows": 24, "cols": 80})

    rows: _Side = 24
    cols: _Side = 80
    process_id: Annotated[str | None, Field(min_length=1, max_length=64, description="One that has a terminal.")] = None

    def wanted(self) -> NewProcess:
        """For the use case, where no process is named."""
        return NewProcess(line=_SHELL, terminal=TerminalSize(self.rows, self.cols))


class AskForTerminal(ShellWanted):
    """Which terminal: that of a process, or of a new one."""

    command: Annotated[
        str | None,
        Field(min_length=1, description="A line for `bash`, or `sh`.", json_schema_extra={"pattern": NO_NUL}),
    ] = None
    env: GivenVariables | None = None
    cwd: WorkFolder | None = None

    def wanted(self) -> NewProcess:
        """For the use case, where no process is named."""
        size = TerminalSize(self.rows, self.cols)
        return NewProcess(line=self.command or _SHELL, env=self.env or {}, cwd=self.cwd, terminal=size)


class OpenTerminal(Model):
    """Which terminal, and from where on."""

    model_config = example({})

    rows: _SideInAddress = 24
    cols: _SideInAddress = 80
    process_id: Annotated[str | None, Field(min_length=1, max_length=64)] = None
    ticket: Annotated[str | None, Field(max_length=128, description="Of `POST …/terminal`.")] = None
    after: Annotated[str | None, Field(max_length=64, description="A `position` of the output.")] = None

    def wanted(self) -> NewProcess:
        """For the use case, where no process is named."""
        return NewProcess(line=_SHELL, terminal=TerminalSize(self.rows, self.cols))


class TerminalAnswer(Model):
    """Where a browser opens the terminal, once, while the ticket is good."""

    model_config = with_example(
        {
            "process_id": _PROCESS_ID,
            "url": f"/api/v1/sandbox/environments/env-06evrhxq8g000wmabyzsqnd3wf/terminal?process_id={_PROCESS_ID}"
            "&ticket=tGbbgnz9WZ3b",
            "ticket": "tGbbgnz9WZ3b",
            "expires_in": 30,
            "protocol": "sandgate.terminal.v1",
        }
    )

    process_id: str
    url: Annotated[str, Field(description="On this server, with `ws:` or `wss:` before it.")]
    ticket: str
    expires_in: Annotated[int, Field(description="Seconds.")]
    protocol: Annotated[str, Field(description="The subprotocol.")] = "sandgate.terminal.v1"


class SignalProcess(Model):
    """A signal for a process."""

    model_config = example({"signal": "SIGINT"})

    signal: Literal[
        "SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGCONT", "SIGSTOP", "SIGTSTP"
    ]

    def number(self) -> int:
        """For the use case."""
        return signal.Signals[self.signal].value


class WaitForProcess(Model):
    """How long to wait."""

    model_config = example({"timeout": 10})

    timeout: Annotated[float, Field(ge=0, le=60, description="Seconds.")] = 30.0


class FeedProcess(Model):
    """What comes with input."""

    model_config = example({})

    eof: Annotated[
        Literal["true", "false"], Field(description="Whether there is no more input after this; on a terminal Ctrl-D.")
    ] = "false"


class ReadProcess(Model):
    """Where to begin."""

    model_config = example({})

    after: Annotated[
        str | None, Field(max_length=64, description="A `position`, or the `id` of an event; by default the beginning.")
    ] = None


class ProcessAnswer(Model):
    """A process in the background of an environment."""

    model_config = with_example(_PROCESS)

    process_id: str
    environment_id: str
    status: ProcessStatus
    command: list[str]
    name: str | None
    metadata: dict[str, str]
    cwd: str | None
    stdin: bool
    pty: TerminalWanted | None
    timeout: float | None
    started_at: datetime
    ended_at: datetime | None
    exit_code: int | None
    signal: str | None
    error: Annotated[str | None, Field(description="Why it could not be started.")]
    usage: UsageAnswer | None

    @classmethod
    def of(cls, row: Process) -> "ProcessAnswer":
        """From the record."""
        size = row.terminal
        return cls(
            process_id=row.process_id,
            environment_id=row.environment_id,
            status=row.status,
            command=list(row.words),
            name=row.name,
            metadata=dict(row.metadata),
            cwd=row.cwd,
            stdin=row.takes_input,
            pty=None if size is None else TerminalWanted(rows=size.rows, cols=size.columns),
            timeout=row.timeout_s,
            started_at=row.started_at,
            ended_at=row.ended_at,
            exit_code=row.exit_code,
            signal=row.signal,
            error=row.error,
            usage=None if row.usage is None else UsageAnswer.of(row.usage),
        )


class ProcessesAnswer(Model):
    """The processes of an environment, newest first; there are few, so that one page holds them."""

    model_config = with_example({"processes": [_PROCESS], "next_cursor": None})

    processes: list[ProcessAnswer]
    next_cursor: Cursor = None


class SkippedAnswer(Model):
    """How many characters of each stream are not kept any more; null where nobody knows."""

    stdout: int | None
    stderr: int | None


class ProcessOutputAnswer(Model):
    """What is kept of the output behind a position."""

    model_config = with_example(
        {"stdout": "serving\n", "stderr": "", "position": "0-8.0", "skipped": {"stdout": 0, "stderr": 0}}
    )

    stdout: str
    stderr: str
    position: Annotated[str, Field(description="Send it as `after` for what comes next.")]
    skipped: SkippedAnswer

    @classmethod
    def of(cls, kept: Kept) -> "ProcessOutputAnswer":
        """From what is kept."""
        return cls(**kept.text, position=kept.position, skipped=SkippedAnswer(**kept.skipped))


class InputAnswer(Model):
    """How many bytes of input the process was given; fewer than were sent when it takes no more for now."""

    model_config = with_example({"taken": 6})

    taken: int


class RenderedProcessEvents:
    """The events of a process on their way out."""

    def __init__(self, events: ProcessEvents) -> None:
        self._events = events

    async def __anext__(self) -> Sequence[ServerEvent]:
        """See ``Events``."""
        return [ServerEvent(event.kind, event.position, _data(event)) for event in await anext(self._events)]

    async def aclose(self) -> None:
        """See ``Events``."""
        await self._events.aclose()


def _data(event: ProcessEvent) -> dict[str, Any]:
    if event.kind == SKIPPED:
        return {"stream": event.stream, "characters": event.characters}
    if event.process is None:
        return {"text": event.text}
    return ProcessAnswer.of(event.process).model_dump()
