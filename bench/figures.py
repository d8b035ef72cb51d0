"""What a measurement is: samples, a row of the table, a target and whether it was met."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True, slots=True)
class Samples:
    """Measured values of one thing, in one unit."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Samples":
        """Samples of at least one value."""
        return cls(tuple(values))

    @property
    def median(self) -> float:
        """The middle value."""
        return median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles: half of the values lie between them."""
        return self.percentile(25), self.percentile(75)

    def percentile(self, percent: int) -> float:
        """The value that ``percent`` (1 to 99) of all values do not exceed."""
        if len(self.values) == 1:
            return self.values[0]
        return quantiles(self.values, n=100, method="inclusive")[percent - 1]


@dataclass(frozen=True, slots=True)
class Reference:
    """What a figure is compared with. Without a value, ``reason`` says why there is none."""

    name: str
    value: float | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Bounds of a value and of its ratio to the reference; None is no bound. ``either``: one of the two is enough."""

    at_most: float | None = None
    at_least: float | None = None
    ratio_at_most: float | None = None
    ratio_at_least: float | None = None
    either: bool = False

    def is_met(self, value: float, ratio: float | None) -> bool | None:
        """Whether every bound holds; None when a ratio is asked for and there is no reference."""
        wants_ratio = self.ratio_at_most is not None or self.ratio_at_least is not None
        if wants_ratio and ratio is None:
            if self.either:
                return _within(value, self.at_least, self.at_most) or None
            return None if _within(value, self.at_least, self.at_most) else False
        holds = _within(value, self.at_least, self.at_most)
        compares = ratio is None or _within(ratio, self.ratio_at_least, self.ratio_at_most)
        return (holds or compares) if self.either and wants_ratio else holds and compares

    def text(self, unit: str) -> str:
        """The bounds as a reader of the table expects them."""
        bounds = [_bound("≤", self.at_most, unit), _bound("≥", self.at_least, unit)]
        ratios = [_bound("≤", self.ratio_at_most, "×"), _bound("≥", self.ratio_at_least, "×")]
        return (" or " if self.either else ", ").join(text for text in bounds + ratios if text) or "—"


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _bound(sign: str, value: float | None, unit: str) -> str:
    return "" if value is None else f"{sign} {value:g} {unit}".strip()


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table: what was measured, in which unit, against which target and reference."""

    figure: str
    what: str
    unit: str
    measured: float
    spread: tuple[float, float]
    target: Target
    reference: Reference | None = None

    @property
    def ratio(self) -> float | None:
        """Measured by reference, when there is one."""
        if self.reference is None or not self.reference.value:
            return None
        return self.measured / self.reference.value

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None when that cannot be said without the reference."""
        return self.target.is_met(self.measured, self.ratio)

    def as_json(self) -> dict[str, Any]:
        """Everything, with what follows from it, for the results file."""
        return asdict(self) | {"ratio": self.ratio, "met": self.met, "target_text": self.target.text(self.unit)}


def figure_of(
    name: str, what: str, unit: str, samples: Samples, target: Target, reference: Reference | None = None
) -> Figure:
    """The row of a median."""
    return Figure(name, what, unit, samples.median, samples.spread, target, reference)
