"""Sessions: interpreters that stay between executions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sandgate.core.ids import EnvironmentId, SessionId

Bundle = Mapping[str, str]
"""Something to show: texts by their MIME types. Bytes are base64, and values of JSON are its text."""


def is_json_type(kind: str) -> bool:
    """Whether the text of a MIME type is JSON."""
    return kind == "application/json" or kind.endswith("+json")


class SessionLanguage(StrEnum):
    """What a session's code is written in."""

    PYTHON = "python"
    BASH = "bash"


class SessionStatus(StrEnum):
    """Where a session is in its life."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    ENDED = "ended"


SESSION_TRANSITIONS: Mapping[SessionStatus, frozenset[SessionStatus]] = {
    SessionStatus.STARTING: frozenset({SessionStatus.IDLE, SessionStatus.BUSY, SessionStatus.ENDED}),
    SessionStatus.IDLE: frozenset({SessionStatus.BUSY, SessionStatus.STARTING, SessionStatus.ENDED}),
    SessionStatus.BUSY: frozenset({SessionStatus.IDLE, SessionStatus.STARTING, SessionStatus.ENDED}),
    # A restart gives it another interpreter.
    SessionStatus.ENDED: frozenset({SessionStatus.STARTING}),
}


@dataclass(frozen=True, slots=True)
class SessionBounds:
    """What a session may do, and for how long. ``queued`` executions wait for the one that runs."""

    results: int = 100
    result_bytes: int = 4 * 1024 * 1024
    queued: int = 16
    grace_s: float = 5.0
    background_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What a sandbox is asked to open.

    With ``tag`` a later gateway can take it up: it lives as long as its sandbox, and ``note`` is left with the tag.
    """

    language: SessionLanguage = SessionLanguage.PYTHON
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    bounds: SessionBounds = SessionBounds()
    tag: str | None = None
    note: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class BackgroundOutput:
    """What a session wrote between executions: the newest part of each stream, and how many bytes are lost."""

    stdout: bytes = b""
    stderr: bytes = b""
    lost_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """A session, as it is now. ``executions`` is how many have begun in it since it was made or restarted last."""

    session_id: SessionId
    environment_id: EnvironmentId
    language: SessionLanguage
    status: SessionStatus
    created_at: datetime
    used_at: datetime
    status_reason: str | None = None
    executions: int = 0
    queued: int = 0
    idle_timeout_s: float | None = None
    background: BackgroundOutput = BackgroundOutput()
