"""The use cases of sessions, as the HTTP layer sees them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sandgate.core.ids import EnvironmentId, SessionId
from sandgate.core.principal import Principal
from sandgate.core.session import Session, SessionLanguage


@dataclass(frozen=True, slots=True)
class NewSession:
    """What a caller asks for; ``idle_timeout_s`` None takes the setting's."""

    language: SessionLanguage = SessionLanguage.PYTHON
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    idle_timeout_s: float | None = None


class Sessions(Protocol):
    """Interpreters that stay between executions. Every method raises what ``Environments`` does, and
    ``SessionNotFound`` where it is given an id.
    """

    async def create(self, caller: Principal, environment_id: EnvironmentId, wanted: NewSession) -> Session:
        """Start one, and answer when it waits for code; waits for an environment that is being made.

        Raises ``EnvironmentNotRunning``, ``UnknownLanguage``, ``TooManySessions``, ``SessionEnded``,
        ``ServiceDraining``.
        """
        ...

    async def list(self, caller: Principal, environment_id: EnvironmentId) -> Sequence[Session]:
        """All of a live environment, newest first, the last of those that have ended among them."""
        ...

    async def get(self, caller: Principal, environment_id: EnvironmentId, session_id: SessionId) -> Session:
        """One of them."""
        ...

    async def delete(self, caller: Principal, environment_id: EnvironmentId, session_id: SessionId) -> Session:
        """End it, with what runs in it; answers once nothing of it runs any more."""
        ...

    async def interrupt(self, caller: Principal, environment_id: EnvironmentId, session_id: SessionId) -> Session:
        """Interrupt what runs in it, as by Ctrl-C; what it knows stays. Raises ``SessionEnded``."""
        ...

    async def restart(self, caller: Principal, environment_id: EnvironmentId, session_id: SessionId) -> Session:
        """Give it a new interpreter that knows nothing; one that has ended lives again.

        Raises ``EnvironmentNotRunning``, ``TooManySessions``, ``SessionEnded``, ``ServiceDraining``.
        """
        ...
