"""A command that runs in the background of an environment, as its owner sees it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sandgate.core.command import TerminalSize
from sandgate.core.execution import Usage
from sandgate.core.ids import EnvironmentId, ProcessId, UserId


class ProcessStatus(StrEnum):
    """Where a process is in its life; all but the first two are ends."""

    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    NOT_STARTED = "not_started"
    KILLED = "killed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"


LIVE_PROCESS_STATUSES = frozenset({ProcessStatus.STARTING, ProcessStatus.RUNNING})

_ENDS = frozenset(ProcessStatus) - LIVE_PROCESS_STATUSES

PROCESS_TRANSITIONS: Mapping[ProcessStatus, frozenset[ProcessStatus]] = {
    ProcessStatus.STARTING: _ENDS | {ProcessStatus.RUNNING},
    ProcessStatus.RUNNING: _ENDS - {ProcessStatus.NOT_STARTED},
    **{status: frozenset[ProcessStatus]() for status in _ENDS},
}


@dataclass(frozen=True, slots=True)
class Process:
    """``words`` is the command as it was asked for. ``timeout_s`` None: it may live as long as its environment.

    ``generation`` counts the gateways that have had it: each holds the output of its own time. Everything after it is
    known when it has ended; ``signal`` is the name of the one that ended it, ``error`` why it was not started.
    """

    process_id: ProcessId
    environment_id: EnvironmentId
    owner_id: UserId
    status: ProcessStatus
    words: Sequence[str]
    started_at: datetime
    name: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    takes_input: bool = False
    terminal: TerminalSize | None = None
    timeout_s: float | None = None
    generation: int = 0
    ended_at: datetime | None = None
    exit_code: int | None = None
    signal: str | None = None
    error: str | None = None
    usage: Usage | None = None

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.status in LIVE_PROCESS_STATUSES


_NOTED = ("process_id", "environment_id", "owner_id", "words", "name", "metadata", "cwd", "takes_input", "timeout_s")


def write_note(process: Process) -> bytes:
    """What the next gateway has to know of a process that it takes up."""
    facts: dict[str, Any] = {name: getattr(process, name) for name in _NOTED}
    facts["terminal"] = None if process.terminal is None else asdict(process.terminal)
    facts["started_at"] = process.started_at.isoformat()
    facts["generation"] = process.generation
    return json.dumps(facts).encode()


def read_note(note: bytes) -> Process | None:
    """The process, as it goes on with the gateway that reads this; None for what is no such note."""
    try:
        facts = json.loads(note)
        size = facts["terminal"]
        noted = Process(
            **{name: facts[name] for name in _NOTED},
            status=ProcessStatus.RUNNING,
            started_at=datetime.fromisoformat(facts["started_at"]),
            terminal=None if size is None else TerminalSize(**size),
        )
        return replace(noted, generation=int(facts["generation"]) + 1)
    except (ValueError, KeyError, TypeError):
        return None
