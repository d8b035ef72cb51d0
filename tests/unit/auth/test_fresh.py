"""Answers that may be a second old."""

import asyncio

import pytest

from sandgate.auth.fresh import FreshCache
from sandgate.core.clock import ManualClock
from sandgate.core.errors import StoreUnavailable


class Loader:
    """Counts loads, and holds each up until it is let go."""

    def __init__(self, *, held_up: bool = False) -> None:
        self.loads = 0
        self.value = "first"
        self.gate = asyncio.Event()
        if not held_up:
            self.gate.set()

    async def load(self, key: str) -> str:
        """The value as it was when it was asked for."""
        self.loads += 1
        value = self.value
        await self.gate.wait()
        if value == "error":
            raise StoreUnavailable("gone")
        return value


@pytest.fixture
def cache(clock: ManualClock) -> FreshCache[str, str]:
    """Three values, a second each."""
    return FreshCache(clock, max_age_s=1.0, most=3)


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_value_is_held_for_a_second(cache: FreshCache[str, str], clock: ManualClock) -> None:
    """One load a second, whatever the number of callers."""
    loader = Loader()
    for _ in range(4):
        clock.advance(0.25)
        await cache.get("a", loader.load)
    assert loader.loads == 1
    clock.advance(0.25)
    await cache.get("a", loader.load)
    assert loader.loads == 2


async def test_callers_at_the_same_time_share_a_load(cache: FreshCache[str, str]) -> None:
    """A hundred requests that arrive together cost one query."""
    loader = Loader(held_up=True)
    waiting = [asyncio.ensure_future(cache.get("a", loader.load)) for _ in range(100)]
    await settle()
    loader.gate.set()
    assert await asyncio.gather(*waiting) == ["first"] * 100
    assert loader.loads == 1


async def test_a_caller_that_goes_away_takes_nobody_along(cache: FreshCache[str, str]) -> None:
    """When the one who loads is cancelled, another loads."""
    loader = Loader(held_up=True)
    waiting = [asyncio.ensure_future(cache.get("a", loader.load)) for _ in range(3)]
    await settle()
    waiting[0].cancel()
    await settle()
    loader.gate.set()
    assert await asyncio.gather(*waiting[1:]) == ["first"] * 2
    assert waiting[0].cancelled()
    assert loader.loads == 2


async def test_a_follower_that_goes_away_stops_nothing(cache: FreshCache[str, str]) -> None:
    """The load goes on for the others."""
    loader = Loader(held_up=True)
    waiting = [asyncio.ensure_future(cache.get("a", loader.load)) for _ in range(3)]
    await settle()
    waiting[1].cancel()
    await settle()
    loader.gate.set()
    assert await waiting[0] == await waiting[2] == "first"
    assert loader.loads == 1


async def test_a_failure_is_everybody_s_and_is_not_held(cache: FreshCache[str, str]) -> None:
    """All who wait get it at once, instead of one time-out after another; the next one asks again."""
    loader = Loader(held_up=True)
    loader.value = "error"
    waiting = [asyncio.ensure_future(cache.get("a", loader.load)) for _ in range(3)]
    await settle()
    loader.gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    loader.value = "second"
    assert await cache.get("a", loader.load) == "second"
    assert loader.loads == 2


async def test_dropping_forgets_a_load_that_is_under_way(cache: FreshCache[str, str]) -> None:
    """It may have read what was there before the change; who comes after the change must not see that."""
    loader = Loader(held_up=True)
    early = asyncio.ensure_future(cache.get("a", loader.load))
    await settle()
    loader.value = "second"
    cache.drop("a")
    late = asyncio.ensure_future(cache.get("a", loader.load))
    await settle()
    loader.gate.set()
    assert (await early, await late) == ("first", "second")
    assert await cache.get("a", loader.load) == "second"
    assert loader.loads == 2


async def test_few_values_are_held(cache: FreshCache[str, str]) -> None:
    """The oldest gives way."""
    loader = Loader()
    for key in "abcd":
        await cache.get(key, loader.load)
    for key in "bcd":
        await cache.get(key, loader.load)
    assert loader.loads == 4
    await cache.get("a", loader.load)
    assert loader.loads == 5
