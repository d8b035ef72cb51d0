"""How far looks at what has come since the last one go back, so that they do not have to be looks at everything."""

from datetime import datetime, timedelta

from sandgate.core.clock import Clock

# What is written late, or by a server whose clock is behind, is seen all the same; what is later than that is seen by a
# look at everything.
_OVERLAP = timedelta(minutes=10)
_EVERYTHING_S = 3600.0


class Lookback:
    """Of looks that follow one another. The first is at everything, and so is one every hour."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_at: datetime | None = None
        self._next_at: datetime | None = None
        self._everything_s: float | None = None

    def begin(self) -> datetime | None:
        """Since when things have to have come that this look is at; None: whenever they came."""
        self._next_at = self._clock.now()
        is_young = self._everything_s is not None and self._clock.monotonic() - self._everything_s < _EVERYTHING_S
        return self._began_at - _OVERLAP if is_young and self._began_at is not None else None

    def end(self, since: datetime | None) -> None:
        """The look that was begun has seen everything since then; one that does not get so far is done again."""
        self._began_at = self._next_at
        if since is None:
            self._everything_s = self._clock.monotonic()
