"""The rule by which a figure is said to grow."""

import random

import pytest

from tests.crash.growth import judge

COUNT = 24
WORK = [400.0 * number for number in range(1, COUNT + 1)]
#: Bytes; in all, of 17 readings with 6,400 pieces of work between the first and the last.
LEAST = 48 * 6400.0


def _noise(seed: int, size: float) -> list[float]:
    choose = random.Random(seed)
    return [choose.gauss(0, size) for _each in range(COUNT)]


@pytest.mark.parametrize("seed", range(20))
def test_what_only_wavers_does_not_grow(seed: int) -> None:
    """However much it wavers, and though it had to warm up first."""
    warm_up = [min(number, 5) * 1e6 for number in range(COUNT)]
    readings = [5e7 + more + noise for more, noise in zip(warm_up, _noise(seed, 200_000), strict=True)]
    assert not judge(WORK, readings, LEAST).grows


@pytest.mark.parametrize("seed", range(20))
def test_a_small_leak_in_noise_is_found(seed: int) -> None:
    """200 bytes for each piece of work, with readings that waver by half a thousand such."""
    readings = [5e7 + 200 * work + noise for work, noise in zip(WORK, _noise(seed, 100_000), strict=True)]
    assert judge(WORK, readings, LEAST).grows


def test_one_more_of_something_now_and_then() -> None:
    """One descriptor in a thousand pieces of work."""
    found = judge(WORK, [20 + work // 1000 for work in WORK], 1)
    assert found.grows
    assert found.slope == pytest.approx(0.001, rel=0.2)


@pytest.mark.parametrize(
    "readings",
    [[20.0] * COUNT, [20.0, 21.0] * (COUNT // 2), [40.0 - number for number in range(COUNT)], [20.0] * 20 + [21.0] * 4],
)
def test_what_stays_goes_to_and_fro_or_falls(readings: list[float]) -> None:
    """Does not grow; one more of something, once, is no growth either."""
    assert not judge(WORK, readings, 1).grows
