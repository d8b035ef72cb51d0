"""How large and deep a raw definition is, found without recursion: nothing else in Python may look at it before."""

import math
from dataclasses import dataclass

import orjson

from sandgate.core.errors import InvalidDefinition
from sandgate.core.workflow import Json
from sandgate.workflows.names import MAX_DEFINITION_BYTES, MAX_DEPTH
from sandgate.workflows.problems import Problems, below

_LARGEST_INTEGER = 2**63 - 1
_TOO_LONG = f"The definition is longer than {MAX_DEFINITION_BYTES:,} bytes"


@dataclass(frozen=True, slots=True)
class _Spot:
    """A value and how to get to it."""

    value: Json
    key: str | int | None
    above: "_Spot | None"
    depth: int

    def pointer(self) -> str:
        keys: list[str | int] = []
        spot: _Spot | None = self
        while spot is not None and spot.key is not None:
            keys.append(spot.key)
            spot = spot.above
        return below("", *reversed(keys))


def check_length(raw: Json) -> int:
    """Length as compact JSON in bytes, an escape counted as one, known in milliseconds.

    Of what cannot be written as JSON, for which ``check_extent`` finds words, it is the most that may be. Raises
    ``InvalidDefinition`` when it is longer.
    """
    try:
        text = orjson.dumps(raw)
    except TypeError:
        return MAX_DEFINITION_BYTES
    # An escape begins with the only backslash that it has, but for that of a backslash, which is two of them.
    length = len(text) - text.count(b"\\") + text.count(b"\\\\")
    if length > MAX_DEFINITION_BYTES:
        raise InvalidDefinition([("", _TOO_LONG)])
    return length


def check_extent(raw: Json, problems: Problems) -> None:
    """Note when the definition is too large, too deep, or holds a number that JSON in a database cannot hold."""
    size = 0
    todo = [_Spot(raw, None, None, 0)]
    while todo:
        spot = todo.pop()
        size += _own_size(spot)
        if size > MAX_DEFINITION_BYTES:
            problems.add("", _TOO_LONG)
            return
        if spot.depth > MAX_DEPTH:
            problems.add(spot.pointer(), f"is nested deeper than {MAX_DEPTH} levels")
        elif not _can_be_kept(spot.value):
            problems.add(spot.pointer(), "has to be a finite number; whole ones have 64 bits")
        else:
            todo.extend(_parts(spot))


def _own_size(spot: _Spot) -> int:
    """Length as compact JSON, its quotes and comma counted and escapes not."""
    own = len(spot.key.encode("utf-8", "replace")) + 3 if isinstance(spot.key, str) else 0
    if isinstance(spot.value, str):
        return own + len(spot.value.encode("utf-8", "replace")) + 3
    return own + 2


def _can_be_kept(value: Json) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or abs(value) <= _LARGEST_INTEGER


def _parts(spot: _Spot) -> list[_Spot]:
    if isinstance(spot.value, dict):
        return [_Spot(item, key, spot, spot.depth + 1) for key, item in spot.value.items()]
    if isinstance(spot.value, list):
        return [_Spot(item, index, spot, spot.depth + 1) for index, item in enumerate(spot.value)]
    return []
