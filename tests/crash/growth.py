"""Whether a figure that was read again and again while work was done grows with the work.

A line through noisy figures always goes up or down a little. A figure grows when its readings rise more often than
chance allows (Mann and Kendall's test, one-sided), and when what the median slope (Theil and Sen's) makes of it is more
than ``least``. Readings of the beginning do not count: caches and pools fill then.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: One chance in a hundred that a figure which only wavers is taken for one that grows.
_CHANCE = 0.01
_WARM_UP = 0.3


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of one figure."""

    first: float
    settled: float
    last: float
    slope: float
    """Median, for each piece of work."""
    chance: float
    """That readings without a trend rise as often."""
    grows: bool


def judge(work: Sequence[float], readings: Sequence[float], least: float) -> Growth:
    """Look at readings taken after so much ``work`` each; less than ``least`` in all is no growth."""
    begin = math.ceil(len(readings) * _WARM_UP)
    done, seen = work[begin:], readings[begin:]
    pairs = [(done[b] - done[a], seen[b] - seen[a]) for a in range(len(seen)) for b in range(a + 1, len(seen))]
    slope = statistics.median([rise / run for run, rise in pairs])
    chance = _chance_of(seen)
    grows = chance < _CHANCE and slope * (done[-1] - done[0]) > least
    return Growth(readings[0], seen[0], readings[-1], slope, chance, grows)


def _chance_of(readings: Sequence[float]) -> float:
    """The share of orders of these readings in which as many later ones are above earlier ones, nearly.

    Source: Kendall, Rank Correlation Methods; the normal approximation with ties, good from about 8 readings on.
    """
    count = len(readings)
    score = sum(
        (readings[b] > readings[a]) - (readings[b] < readings[a]) for a in range(count) for b in range(a + 1, count)
    )
    ties = [readings.count(value) for value in set(readings)]
    spread = count * (count - 1) * (2 * count + 5) - sum(tie * (tie - 1) * (2 * tie + 5) for tie in ties)
    if score <= 0 or spread <= 0:
        return 1.0
    return 0.5 * math.erfc((score - 1) / math.sqrt(spread / 18) / math.sqrt(2))
