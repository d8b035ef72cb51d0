"""Fields of requests to the launcher: what is not exactly what it has to be is refused."""

import re
from collections.abc import Mapping
from typing import Any

LARGEST = 2**53


class ProtocolError(Exception):
    """A request that is not one of the verbs with its arguments; ``number`` is its own, where it has one."""

    number: int | None = None


def text_of(message: Mapping[str, Any], field: str, pattern: re.Pattern[str]) -> str:
    """A text of a form. Raises ``ProtocolError``."""
    value = message.get(field)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ProtocolError(f"{field} is not of the form {pattern.pattern}")
    return value


def count_of(message: Mapping[str, Any], field: str, least: int) -> int:
    """A whole number. Raises ``ProtocolError``."""
    value = message.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < LARGEST:
        raise ProtocolError(f"{field} is not a whole number from {least} on")
    return value
