"""Time is injected, so that tests do not sleep."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where a service asks what time it is."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC: for records and for what a person reads."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for measuring and for deadlines inside one process."""
        ...


def show_time(moment: datetime) -> str:
    """As RFC 3339 in UTC, with ``Z``: the one form in which times are told, also inside of data."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """See :class:`Clock`."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See :class:`Clock`."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._monotonic = 1000.0

    def now(self) -> datetime:
        """See :class:`Clock`."""
        return self._now

    def monotonic(self) -> float:
        """See :class:`Clock`."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
