"""Sessions, as clients ask for and get to read them."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from sandgate.core.session import BackgroundOutput, Session, SessionLanguage, SessionStatus
from sandgate.environments.session_port import NewSession
from sandgate.http.models.base import Model
from sandgate.http.models.parts import with_example
from sandgate.http.models.requests import GivenVariables, WorkFolder, example

_SESSION_ID = "session-06evrhy3k000t5v8c0p9x2m4qj"
_TIME = "2026-01-01T00:00:00Z"
_SESSION = {
    "session_id": _SESSION_ID,
    "environment_id": "env-06evrhxq8g000wmabyzsqnd3wf",
    "language": "python",
    "status": "idle",
    "status_reason": None,
    "creation_time": _TIME,
    "last_used_at": _TIME,
    "idle_timeout": None,
    "executions": 0,
    "queued": 0,
    "background": {"stdout": "", "stderr": "", "lost_bytes": 0},
}


class CreateSession(Model):
    """A new session."""

    model_config = example({}, {"language": "python", "cwd": "data", "env": {"MODE": "test"}, "idle_timeout": 600})

    language: Annotated[Literal["python", "bash"], Field(description="What its code is written in.")] = "python"
    cwd: WorkFolder | None = None
    env: GivenVariables | None = None
    idle_timeout: Annotated[
        float | None,
        Field(ge=1, le=86_400, description="It is ended when it has run nothing for so many seconds."),
    ] = None

    def wanted(self) -> NewSession:
        """For the use case."""
        return NewSession(SessionLanguage(self.language), self.cwd, self.env or {}, self.idle_timeout)


class BackgroundAnswer(Model):
    """What a session's threads and processes wrote between executions: the newest part."""

    stdout: str
    stderr: str
    lost_bytes: Annotated[int, Field(description="What was written before that and is not kept.")]

    @classmethod
    def of(cls, output: BackgroundOutput) -> "BackgroundAnswer":
        """From the session."""
        return cls(
            stdout=output.stdout.decode("utf-8", "replace"),
            stderr=output.stderr.decode("utf-8", "replace"),
            lost_bytes=output.lost_bytes,
        )


class SessionAnswer(Model):
    """A session. One that has `ended` says why, and can be restarted."""

    model_config = with_example(_SESSION)

    session_id: str
    environment_id: str
    language: SessionLanguage
    status: SessionStatus
    status_reason: str | None
    creation_time: datetime
    last_used_at: datetime
    idle_timeout: float | None
    executions: Annotated[int, Field(description="How many have begun since it was made or restarted last.")]
    queued: Annotated[int, Field(description="How many wait for the one that runs.")]
    background: BackgroundAnswer

    @classmethod
    def of(cls, session: Session) -> "SessionAnswer":
        """From the use case."""
        return cls(
            session_id=session.session_id,
            environment_id=session.environment_id,
            language=session.language,
            status=session.status,
            status_reason=session.status_reason,
            creation_time=session.created_at,
            last_used_at=session.used_at,
            idle_timeout=session.idle_timeout_s,
            executions=session.executions,
            queued=session.queued,
            background=BackgroundAnswer.of(session.background),
        )


class SessionsAnswer(Model):
    """All sessions of an environment, newest first; there are few, so that one page holds them."""

    model_config = with_example({"sessions": [_SESSION], "next_cursor": None})

    sessions: list[SessionAnswer]
    next_cursor: Annotated[None, Field(description="There is no other page.")] = None


class SessionDeletedAnswer(Model):
    """Nothing of the session runs any more."""

    model_config = with_example({"session_id": _SESSION_ID, "status": "ended"})

    session_id: str
    status: Literal["ended"] = "ended"
