"""One piece of code, run once."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from sandgate.core.ids import EnvironmentId, ExecutionId, SessionId, UserId
from sandgate.core.language import Language
from sandgate.core.output_tap import OutputTap
from sandgate.core.output_watch import OutputWatch
from sandgate.core.session import Bundle
from sandgate.core.states import ExecutionStatus

if TYPE_CHECKING:
    # It brings an event loop along, which commands that only show something have no use for.
    from sandgate.core.command_talk import CommandStart


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """How the user's code went wrong: the exception's class name, its text and the traceback of the user's own lines.

    For an exit code without an exception, ``name`` is ``SystemExit``, ``NonZeroExit`` or ``Signal``.
    """

    name: str
    value: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What an execution used: time of all its processes, and the most memory of its environment while it ran."""

    cpu_ms: int
    peak_memory_bytes: int


class InputSource(Protocol):
    """What is sent to an execution after what it was given at its beginning."""

    def take(self, resume: Callable[[], None]) -> bytes:
        """The next piece. Empty when there is none now: then ``resume`` is called when there is."""
        ...


@dataclass(frozen=True, slots=True)
class FileOperation:
    """What a sandbox does with its files in the place of running code; see ``sandgate_agent/file_worker.py``.

    Its answer goes to the request's ``sink``; what it reads comes from ``source``. ``modules`` of ``sandgate_agent`` go
    with it, because a child has none but those that all need.
    """

    operation: str
    arguments: Mapping[str, Any]
    source: InputSource | None = None
    modules: tuple[str, ...] = ()


OUTPUT_STREAMS = ("stdout", "stderr")


def _make_folder_name() -> str:
    return f".step-{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class StepData:
    """What the code of a workflow's step is given: ``inputs`` as JSON, and environment variables.

    ``folder`` is the name of the folder of its files, which no other attempt has. ``language`` is what the code is
    written in, None: in that of the interpreter.
    """

    inputs: Mapping[str, Any] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    folder: str = field(default_factory=_make_folder_name)
    language: str | None = None


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that is written before code runs; ``path`` is as the code would say it in the work folder."""

    path: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What code finds when it begins. ``cwd`` None is the work folder; ``args`` follow the name of the program.

    The files are written first, so that ``cwd`` may be a folder that comes with them.
    """

    stdin: str = field(default="", repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    args: Sequence[str] = ()
    files: Sequence[InputFile] = ()

    def measure(self) -> int:
        """How many bytes all of it is, in UTF-8."""
        texts = [self.stdin, self.cwd or "", *self.args, *self.env, *self.env.values()]
        in_texts = sum(len(text.encode("utf-8", "replace")) for text in texts)
        return in_texts + sum(len(file.path.encode("utf-8", "replace")) + len(file.content) for file in self.files)


class OutputSink(Protocol):
    """Takes all that an execution writes to stdout, in order, in place of the kept part."""

    def put(self, data: bytes, resume: Callable[[], None]) -> bool:
        """Take a piece. False when the next one has to wait until ``resume`` is called."""
        ...

    def close(self) -> None:
        """There is no more."""
        ...


@dataclass(frozen=True, slots=True)
class ExecutionRequest:
    """What a sandbox is asked to run. ``timeout_s`` is counted from the moment the code starts.

    With ``data`` the code finds ``inputs``, fills ``outputs``, and the end of the execution tells them. ``is_last``:
    the sandbox is about to be ended, so that nothing need be got ready for another one. With ``tap`` the output can be
    seen while it is written. With ``tag`` a later gateway may take the execution up if this one dies: see
    ``Runtime.resume``. With ``sink`` stdout goes there, without a cap of its own. With ``around`` the code finds more
    than the environment; what of it cannot be laid out, as a folder that is not there, is an error of the code. With
    ``watch`` somebody sees all output as it is written; not together with ``sink``, or with the ``tag`` of code. With
    ``files`` no code is run. ``language`` None is that of the sandbox's interpreter. With
    ``command`` no code is run, either: it stays beside what is executed, takes no place of it, and writes to ``watch``
    only. A tag then has no leave to end: it lives as long as its sandbox. With ``session_id`` it is run by that session
    instead of a process of its own.
    """

    code: str
    timeout_s: float
    data: StepData | None = None
    is_last: bool = False
    tag: str | None = None
    tap: OutputTap | None = None
    sink: OutputSink | None = None
    around: Surroundings | None = None
    watch: OutputWatch | None = None
    files: FileOperation | None = None
    language: Language | None = None
    session_id: SessionId | None = None
    command: "CommandStart | None" = None


@dataclass(frozen=True, slots=True)
class Termination:
    """Why and how an execution ended. ``stdout`` and ``stderr`` are the kept part of the output, raw bytes.

    ``exit_code`` is the process's exit code, 128 + N when signal N ended it, None when the service ended it.
    ``outputs`` is what the code of a step left, as it wrote it: at most 256 KiB that ought to be JSON.
    ``left_files`` is False when the code of a step says that it left no files. ``is_tidy`` is False when it had files
    of its own and did not get to remove them. ``results`` is what an execution in a session has shown, None
    of any other.
    """

    status: ExecutionStatus
    exit_code: int | None
    stdout: bytes
    stderr: bytes
    stdout_truncated: bool
    stderr_truncated: bool
    error: ErrorReport | None
    duration_s: float
    usage: Usage
    outputs: bytes | None = None
    left_files: bool = False
    is_tidy: bool = True
    results: Sequence[Bundle] | None = None
    results_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Execution:
    """An execution's row. Everything after ``started_at`` is None or empty while it runs."""

    execution_id: ExecutionId
    environment_id: EnvironmentId
    owner_id: UserId
    status: ExecutionStatus
    timeout_s: float
    started_at: datetime
    finished_at: datetime | None = None
    duration_ms: int | None = None
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    error: ErrorReport | None = None
    usage: Usage | None = None
    session_id: SessionId | None = None
    results: Sequence[Bundle] | None = None
    results_truncated: bool = False
