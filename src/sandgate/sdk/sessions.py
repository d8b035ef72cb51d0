"""The calls of a client about sessions."""

from collections.abc import Mapping, Sequence
from typing import Any

from sandgate.sdk.answers import Session, Sessions
from sandgate.sdk.calls import Calls, leave_out_none
from sandgate.sdk.files import environment_path
from sandgate.sdk.reading import quote_part
from sandgate.sdk.transport import Asked


def _path(environment_id: str, session_id: str) -> str:
    return f"{environment_path(environment_id)}/sessions/{quote_part(session_id)}"


class SessionCalls(Calls):
    """The part of :class:`sandgate.sdk.client.Client` that is about sessions; it raises what that one does."""

    def create_session(
        self,
        environment_id: str,
        *,
        language: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        idle_timeout_s: float | None = None,
        key: str | None = None,
    ) -> Session:
        """An interpreter that stays; ``execute`` with its ``session_id`` runs code in it.

        ``key`` makes it safe to call again with the same one.
        """
        body: dict[str, Any] = {
            "language": language,
            "cwd": cwd,
            "env": None if env is None else dict(env),
            "idle_timeout": idle_timeout_s,
        }
        path = f"{environment_path(environment_id)}/sessions"
        return self._get(Session, Asked("POST", path, leave_out_none(body), key=key))

    def list_sessions(self, environment_id: str) -> Sequence[Session]:
        """All of an environment, newest first."""
        path = f"{environment_path(environment_id)}/sessions"
        return self._get(Sessions, Asked("GET", path)).sessions

    def get_session(self, environment_id: str, session_id: str) -> Session:
        """One of them."""
        return self._get(Session, Asked("GET", _path(environment_id, session_id)))

    def delete_session(self, environment_id: str, session_id: str) -> None:
        """End it; returns once nothing of it runs any more."""
        self._transport.ask(Asked("DELETE", _path(environment_id, session_id)))

    def interrupt_session(self, environment_id: str, session_id: str) -> Session:
        """Interrupt what runs in it; what it knows stays."""
        path = f"{_path(environment_id, session_id)}/interrupt"
        return self._get(Session, Asked("POST", path))

    def restart_session(self, environment_id: str, session_id: str) -> Session:
        """Give it a new interpreter, which knows nothing."""
        path = f"{_path(environment_id, session_id)}/restart"
        return self._get(Session, Asked("POST", path))
