"""What is done again and again."""

import asyncio
from typing import Any

import pytest

from sandgate.core.errors import LauncherUnavailable, StoreUnavailable
from sandgate.telemetry.rounds import go_round

LIMIT_S = 60.0


class Log:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def warning(self, event: str, reason: str) -> None:
        """Something is away."""
        self.told.append(("warning", event, reason))

    def error(self, event: str, reason: str) -> None:
        """The machine itself."""
        self.told.append(("error", event, reason))


class Look:
    """Fails in one way after another, and at last with a bug."""

    def __init__(self, *failures: Exception | None) -> None:
        self.left = list(failures)

    async def __call__(self) -> None:
        """The next one."""
        failure = self.left.pop(0) if self.left else KeyError("a bug")
        if failure is not None:
            raise failure


async def _go(look: Look, log: Any, **named: Any) -> None:
    async with asyncio.timeout(LIMIT_S):
        await go_round(look, 0.0, log, "not looked at", **named)


@pytest.mark.parametrize("at_once", [False, True])
async def test_what_is_away_is_asked_again(at_once: bool) -> None:
    """Which is logged; a bug ends it, so that somebody hears of it."""
    log = Log()
    look = Look(None, StoreUnavailable("no database"), LauncherUnavailable("no launcher"), OSError(28, "full"), None)
    with pytest.raises(KeyError):
        await _go(look, log, at_once=at_once)
    assert log.told == [
        ("warning", "not looked at", "no database"),
        ("warning", "not looked at", "no launcher"),
        ("error", "not looked at", "full"),
    ]


@pytest.mark.parametrize(("at_once", "looks"), [(False, 0), (True, 1)])
async def test_the_first_look_comes_when_it_is_wanted(at_once: bool, looks: int) -> None:
    """At once, or when there may be something to see."""
    look = Look(None)
    task = asyncio.ensure_future(go_round(look, 3600.0, Log(), "", at_once=at_once))  # type: ignore[arg-type]
    for _turn in range(3):
        await asyncio.sleep(0)
    assert len(look.left) == 1 - looks
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
