"""Fields of requests to the launcher: what is not exactly what it has to be is refused."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LARGEST = 2**53


@dataclass(frozen=True, slots=True)
class OfSandbox:
    """A request that is about one sandbox, as each of them begins."""

    environment_id: str


class ProtocolError(Exception):
    """A request that is not one of the verbs with its arguments; ``number`` is its own, where it has one."""

    number: int | None = None


def text_of(message: Mapping[str, Any], field: str, pattern: re.Pattern[str]) -> str:
    """A text of a form. Raises ``ProtocolError``."""
    value = message.get(field)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ProtocolError(f"{field} is not of the form {pattern.pattern}")
    return value


def seconds_of(message: Mapping[str, Any], field: str, most: float) -> float:
    """A number of seconds. Raises ``ProtocolError``."""
    value = message.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProtocolError(f"{field} is not a number")
    # What is no number is not between any two.
    if not 0 <= value <= most:
        raise ProtocolError(f"{field} is not between 0 and {most:.0f}")
    return float(value)


def count_of(message: Mapping[str, Any], field: str, least: int) -> int:
    """A whole number. Raises ``ProtocolError``."""
    value = message.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < LARGEST:
        raise ProtocolError(f"{field} is not a whole number from {least} on")
    return value
