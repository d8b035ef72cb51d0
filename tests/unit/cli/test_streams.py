"""Streams that break."""

from collections.abc import Callable, Generator, Sequence

import pytest

from sandgate.cli.streams import PATIENCE_S, follow_to_end
from sandgate.sdk.errors import ApiError, ServerUnreachable
from sandgate.sdk.events import ServerEvent

FINISHED = ServerEvent("finished", "{}", "9")
GONE = ServerUnreachable("gone", sent=True)
BUSY = ApiError(503, "NOT_AVAILABLE", "busy", {})


def _log(number: int) -> ServerEvent:
    return ServerEvent("log", str(number), str(number))


class Streams:
    """Each stream is some events, and what breaks it; ``asked`` has the ids that it was gone on with after."""

    def __init__(self, *played: Sequence[ServerEvent | Exception]) -> None:
        self.played = list(played)
        self.asked: list[str] = []
        self.waits: list[float] = []
        self.troubles: list[str] = []

    def open(self, last: str) -> Generator[ServerEvent, None, None]:
        """The next one."""
        self.asked.append(last)
        for each in self.played.pop(0):
            if isinstance(each, Exception):
                raise each
            yield each

    def follow(self, monotonic: Callable[[], float] = lambda: 0.0) -> list[ServerEvent]:
        """All that comes of them."""
        return list(follow_to_end(self.open, self.troubles.append, sleep=self.waits.append, monotonic=monotonic))


def test_a_broken_stream_goes_on_after_the_last_event() -> None:
    """Whether it broke, was ended, or could not be opened; waits grow until something comes."""
    streams = Streams([_log(1), GONE], [BUSY], [], [_log(2)], [_log(3), FINISHED, _log(4)])
    assert streams.follow() == [_log(1), _log(2), _log(3), FINISHED]
    assert streams.asked == ["", "1", "1", "1", "2"]
    assert streams.waits == [0.25, 0.5, 1.0, 0.25]
    assert streams.troubles == ["gone; trying again", "busy; trying again"]


def test_a_refusal_ends_it() -> None:
    """At once."""
    streams = Streams([_log(1), ApiError(404, "NOT_FOUND", "none", {})])
    with pytest.raises(ApiError, match="none"):
        streams.follow()
    assert streams.waits == []


def test_a_server_that_stays_away_is_given_up() -> None:
    """When nothing has come for long."""
    clock = iter([0.0, PATIENCE_S - 1, PATIENCE_S])
    streams = Streams([GONE], [GONE])
    with pytest.raises(ServerUnreachable):
        streams.follow(lambda: next(clock))
    assert len(streams.waits) == 1


def test_a_stream_that_ends_and_says_nothing_is_given_up() -> None:
    """As one that cannot be opened is."""
    streams = Streams([_log(1)], [], [])
    clock = iter([0.0, 1.0, 2.0, PATIENCE_S, PATIENCE_S + 2])
    with pytest.raises(ServerUnreachable, match="says nothing"):
        streams.follow(lambda: next(clock))
    assert streams.asked == ["", "1", "1"]
