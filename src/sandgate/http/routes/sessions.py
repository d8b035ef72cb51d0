"""Sessions: interpreters that stay between executions."""

from sandgate.core import errors
from sandgate.environments.session_port import NewSession, Sessions
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.models.sessions import CreateSession, SessionAnswer, SessionDeletedAnswer, SessionsAnswer
from sandgate.http.paths import EnvironmentPath, SessionPath

_SESSIONS = "/api/v1/sandbox/environments/{environment_id}/sessions"
_SESSION = f"{_SESSIONS}/{{session_id}}"
_TAG = "sessions"
_CHANGES = (
    errors.EnvironmentNotFound,
    errors.Forbidden,
    errors.EnvironmentNotRunning,
    errors.EnvironmentElsewhere,
)
_STARTS = (*_CHANGES, errors.TooManySessions, errors.SessionEnded, errors.SandboxFailed, errors.ServiceDraining)


def add_session_routes(api: Api, sessions: Sessions) -> None:
    """Declare the operations."""
    _add_list_routes(api, sessions)
    _add_one_routes(api, sessions)
    _add_doing_routes(api, sessions)


def _add_list_routes(api: Api, sessions: Sessions) -> None:
    @api.operation("POST", _SESSIONS, tag=_TAG, status=201, errors=(*_STARTS, errors.UnknownLanguage), idempotent=True)
    async def create_session(
        caller: Caller, environment_id: EnvironmentPath, body: CreateSession | None = None
    ) -> SessionAnswer:
        """Start an interpreter that stays: `execute` with its `session_id` runs code in it, one piece after another.

        It lives until it is deleted, its code ends it, or its environment ends.
        """
        wanted = NewSession() if body is None else body.wanted()
        return SessionAnswer.of(await sessions.create(caller, environment_id, wanted))

    @api.operation("GET", _SESSIONS, tag=_TAG, errors=(errors.EnvironmentNotFound,))
    async def list_sessions(caller: Caller, environment_id: EnvironmentPath) -> SessionsAnswer:
        """List the environment's sessions, newest first, with those that have ended last and why."""
        found = await sessions.list(caller, environment_id)
        return SessionsAnswer(sessions=[SessionAnswer.of(session) for session in found])


def _add_one_routes(api: Api, sessions: Sessions) -> None:
    @api.operation("GET", _SESSION, tag=_TAG, errors=(errors.EnvironmentNotFound, errors.SessionNotFound))
    async def get_session(caller: Caller, environment_id: EnvironmentPath, session_id: SessionPath) -> SessionAnswer:
        """Get one session, with what its threads wrote between executions."""
        return SessionAnswer.of(await sessions.get(caller, environment_id, session_id))

    @api.operation("DELETE", _SESSION, tag=_TAG, errors=(*_CHANGES, errors.SessionNotFound))
    async def delete_session(
        caller: Caller, environment_id: EnvironmentPath, session_id: SessionPath
    ) -> SessionDeletedAnswer:
        """End a session with all that it has started; answers once nothing of it runs any more."""
        await sessions.delete(caller, environment_id, session_id)
        return SessionDeletedAnswer(session_id=session_id)


def _add_doing_routes(api: Api, sessions: Sessions) -> None:
    @api.operation("POST", f"{_SESSION}/interrupt", tag=_TAG, errors=(*_CHANGES, errors.SessionNotFound))
    async def interrupt_session(
        caller: Caller, environment_id: EnvironmentPath, session_id: SessionPath
    ) -> SessionAnswer:
        """Interrupt the code that runs, as Ctrl-C does: it meets a `KeyboardInterrupt`, and the session stays.

        One that runs nothing stays as it is.
        """
        return SessionAnswer.of(await sessions.interrupt(caller, environment_id, session_id))

    @api.operation("POST", f"{_SESSION}/restart", tag=_TAG, errors=(*_STARTS, errors.SessionNotFound))
    async def restart_session(
        caller: Caller, environment_id: EnvironmentPath, session_id: SessionPath
    ) -> SessionAnswer:
        """End the session's interpreter and give it a new one, which knows nothing; one that has ended lives again."""
        return SessionAnswer.of(await sessions.restart(caller, environment_id, session_id))
