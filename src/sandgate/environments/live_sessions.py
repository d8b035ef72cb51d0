"""The sessions of one live environment, in memory."""

import asyncio
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from sandgate.core.clock import Clock
from sandgate.core.environment import Environment
from sandgate.core.errors import Forbidden, SessionNotFound
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import EnvironmentId, SessionId, UserId
from sandgate.core.principal import Principal
from sandgate.core.session import Session, SessionBounds, SessionLanguage, SessionRequest, SessionStatus
from sandgate.sandbox.base import RunningExecution, RunningSession

# Of those that have ended the newest are shown, with why.
_MOST_ENDED = 16


@dataclass
class LiveSession:
    """A session and the interpreter that it has now; ``user_id`` is who asked for that."""

    session_id: SessionId
    environment_id: EnvironmentId
    user_id: UserId
    request: SessionRequest
    created_at: datetime
    used_at: datetime
    idle_timeout_s: float | None = None
    # In seconds of the clock's ``monotonic``.
    idle_since: float = 0.0
    _running: RunningSession | None = field(default=None, repr=False)
    # One restart at a time.
    changing: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    @property
    def running(self) -> RunningSession:
        """Its interpreter, which it is given before anybody sees it."""
        assert self._running is not None  # noqa: S101 - see above
        return self._running

    @running.setter
    def running(self, running: RunningSession) -> None:
        self._running = running

    @property
    def language(self) -> SessionLanguage:
        """What its code is written in."""
        return self.request.language

    @property
    def has_ended(self) -> bool:
        """Whether its interpreter is gone."""
        return self.running.status is SessionStatus.ENDED

    def check_can_run(self, caller: Principal, row: Environment) -> None:
        """Raises ``Forbidden`` for an admin where the session has secrets of the environment's owner."""
        if row.variables.secrets and self.user_id == row.owner_id != caller.user_id:
            raise Forbidden(f"Session {self.session_id} has secrets of the environment's owner; make one of your own")

    def execute(self, request: ExecutionRequest) -> RunningExecution:
        """See ``RunningSession``."""
        return self.running.execute(request)

    def note_use(self, clock: Clock) -> None:
        """Something begins in it, or has ended."""
        self.used_at, self.idle_since = clock.now(), clock.monotonic()

    def describe(self) -> Session:
        """As it is now."""
        running = self.running
        return Session(
            session_id=self.session_id,
            environment_id=self.environment_id,
            language=self.language,
            status=running.status,
            created_at=self.created_at,
            used_at=self.used_at,
            status_reason=running.reason,
            executions=running.executions,
            queued=running.queued,
            idle_timeout_s=self.idle_timeout_s,
            background=running.background,
        )


_NOTED = ("session_id", "environment_id", "user_id", "idle_timeout_s")
TAG = "session|"


def make_tag(environment_id: EnvironmentId, session_id: SessionId) -> str:
    """What an interpreter of a session is known by to a later gateway; each has another."""
    return f"{TAG}{environment_id}|{session_id}|{secrets.token_hex(8)}"


def write_note(session: LiveSession) -> bytes:
    """What a later gateway has to know of a session that it takes up."""
    facts = {name: getattr(session, name) for name in _NOTED}
    request = session.request
    asked = {"language": request.language.value, "cwd": request.cwd, "env": dict(request.env)}
    return json.dumps({**facts, **asked, "created_at": session.created_at.isoformat()}).encode()


def read_note(note: bytes, bounds: SessionBounds) -> LiveSession | None:
    """The session, without an interpreter; None for what is no such note."""
    try:
        facts = json.loads(note)
        request = SessionRequest(SessionLanguage(facts["language"]), facts["cwd"], facts["env"], bounds)
        created_at = datetime.fromisoformat(facts["created_at"])
        noted = {name: facts[name] for name in _NOTED}
        return LiveSession(request=request, created_at=created_at, used_at=created_at, **noted)
    except (ValueError, KeyError, TypeError):
        return None


class LiveSessions:
    """By their ids, oldest first."""

    def __init__(self, environment_id: EnvironmentId) -> None:
        self._environment_id = environment_id
        self._sessions: dict[SessionId, LiveSession] = {}

    def __iter__(self) -> Iterator[LiveSession]:
        return iter(tuple(self._sessions.values()))

    def add(self, session: LiveSession) -> None:
        """Keep one more; the oldest of too many that have ended is forgotten."""
        self._sessions[session.session_id] = session
        ended = [each for each in self._sessions.values() if each.has_ended]
        for surplus in ended[: max(0, len(ended) - _MOST_ENDED)]:
            self.remove(surplus)

    def remove(self, session: LiveSession) -> None:
        """Forget one."""
        self._sessions.pop(session.session_id, None)

    def find(self, session_id: SessionId) -> LiveSession | None:
        """The session with this id."""
        return self._sessions.get(session_id)

    def get(self, session_id: SessionId) -> LiveSession:
        """Raises ``SessionNotFound``."""
        session = self.find(session_id)
        if session is None:
            raise session_not_found(self._environment_id, session_id)
        return session

    @property
    def live_count(self) -> int:
        """How many have an interpreter."""
        return sum(not session.has_ended for session in self._sessions.values())


def session_not_found(environment_id: EnvironmentId, session_id: SessionId) -> SessionNotFound:
    """The one answer for what is unknown, deleted, or of another environment."""
    return SessionNotFound(f"Environment {environment_id} has no session {session_id}; GET the list of those it has")
