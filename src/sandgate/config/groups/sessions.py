"""Sessions: interpreters that stay between executions."""

from sandgate.config.groups.row import Group, setting
from sandgate.core.session import SessionBounds


class SessionSettings(Group):
    """Sessions: how many, how long, how much they show."""

    max_sessions: int = setting(8, "Live sessions of one environment.", ge=1, le=1000)
    max_sessions_per_user: int = setting(100, "Live sessions of one user's environments, on this server.", ge=1)
    max_session_queue: int = setting(
        16, "Executions that wait in a session for the one that runs; further ones are answered 429.", ge=0, le=1000
    )
    session_idle_timeout_s: float = setting(
        0.0, "A session that has run nothing for so long is ended, unless it asked for more or less. 0: never.",
        unit="s", ge=0,
    )  # fmt: skip
    session_grace_s: float = setting(
        5.0,
        "How long the code of a session may go on after it was interrupted, at its time limit or because it was "
        "cancelled, before the session is ended.",
        unit="s",
        ge=0.05,
        le=60,
    )
    max_results: int = setting(100, "What one execution in a session may show: how many values.", ge=1, le=10_000)
    max_result_bytes: int = setting(
        4 * 1024**2,
        "What one execution in a session may show, in all. A value that does not fit is left out.",
        unit="bytes",
        ge=1024,
        le=64 * 1024**2,
    )
    session_background_bytes: int = setting(
        65_536,
        "How much of the newest output between executions is kept of each stream of a session.",
        unit="bytes",
        ge=1024,
        le=1024**2,
    )

    def session_bounds(self) -> SessionBounds:
        """What a sandbox holds a session to."""
        return SessionBounds(
            results=self.max_results,
            result_bytes=self.max_result_bytes,
            queued=self.max_session_queue,
            grace_s=self.session_grace_s,
            background_bytes=self.session_background_bytes,
        )
