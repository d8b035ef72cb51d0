"""Which limits a new environment gets: those of its template, and what was asked for instead, below the ceilings."""

from collections.abc import Mapping
from dataclasses import replace

from sandgate.core.errors import LimitTooHigh
from sandgate.core.limits import MIB, AskedLimits, Ceilings, Limits

# As clients write them, and in how many of ours.
_WRITTEN: Mapping[str, tuple[str, int]] = {
    "memory_bytes": ("memory_mb", MIB),
    "cpu_millis": ("cpu", 1000),
    "processes": ("processes", 1),
    "disk_bytes": ("disk_mb", MIB),
}


def _write(name: str, value: int) -> float:
    """A limit as clients write it, whole where it is."""
    parts = _WRITTEN[name][1]
    return value // parts if value % parts == 0 else value / parts


def grant(limits: Limits, asked: AskedLimits, ceilings: Ceilings) -> Limits:
    """A template's limits with what was asked for. Raises ``LimitTooHigh``; what the template gives is never too much.

    Every limit that is too high is named.
    """
    over = {}
    for name, value in asked.given().items():
        ceiling = max(getattr(limits, name), getattr(ceilings, name))
        if value > ceiling:
            over[_WRITTEN[name][0]] = {"asked": _write(name, value), "ceiling": _write(name, ceiling)}
    if over:
        parts = [f"{name} {each['asked']:g} (the most is {each['ceiling']:g})" for name, each in over.items()]
        raise LimitTooHigh(
            f"More is asked for than may be had: {', '.join(parts)}", {"limits": over, "scope": ceilings.scope}
        )
    return replace(limits, **asked.given())
