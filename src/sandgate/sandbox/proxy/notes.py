"""What the log of the server is told of an environment's connections: no more than it can bear, whatever code does."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from sandgate.core.network import Connection, NetworkTotals

Note = Mapping[str, Any]
Say = Callable[[Note], bool]
"""Takes a note, or answers False when there is no room for it now."""

_MINUTE_S = 60.0


class Notes:
    """Of one environment: one for each connection that has ended, and the sums when its network is closed.

    There are ``per_minute`` of them at once and in each minute after; 0 is none at all. ``left_out`` of a note says how
    many connections have none since the note before.
    """

    def __init__(
        self, environment_id: str, owner: str, per_minute: int, say: Say, monotonic: Callable[[], float]
    ) -> None:
        self._about = {"environment_id": environment_id, "user_id": owner}
        self._per_minute = per_minute
        self._say = say
        self._monotonic = monotonic
        self._tokens = float(per_minute)
        self._filled_at = monotonic()
        self._left_out = 0

    def ended(self, connection: Connection) -> None:
        """A connection is over."""
        if self._may() and self._say({**self._about, "connection": _row(connection), "left_out": self._left_out}):
            self._tokens -= 1
            self._left_out = 0
        else:
            self._left_out += 1

    def closed(self, totals: NetworkTotals) -> None:
        """There will be no more."""
        if self._per_minute:
            self._say({**self._about, "totals": asdict(totals), "left_out": self._left_out})

    def _may(self) -> bool:
        now = self._monotonic()
        filled = (now - self._filled_at) * self._per_minute / _MINUTE_S
        self._tokens = min(self._per_minute, self._tokens + filled)
        self._filled_at = now
        return self._tokens >= 1


def _row(connection: Connection) -> dict[str, Any]:
    row = asdict(connection)
    # The log has a time of its own.
    del row["started_at"]
    return row
