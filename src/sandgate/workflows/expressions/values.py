"""Values of expressions are JSON and nothing else: their kinds, texts and equality, all within bounded work."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from sandgate.core.errors import ExpressionError
from sandgate.core.workflow import Json
from sandgate.workflows.expressions.tokens import LARGEST_INTEGER
from sandgate.workflows.suggestions import shown

MAX_WORK = 2_000_000
MAX_VALUE_DEPTH = 64
MAX_TEXT_CHARACTERS = 1024 * 1024

# What looking at one value costs, in characters of text that are copied in the same time.
_VALUE_COST = 4
_CONTAINER_COST = 12
_CALL_COST = 24


class MissingValue(ExpressionError):
    """A path leads to what is not there; ``default()`` catches it."""


class MissingSecret(MissingValue):
    """A secret is named that is not there. Its message shows no value."""

    def __init__(self, name: str, position: int) -> None:
        super().__init__(
            f"There is no secret {shown(name)}; PUT /api/v1/orchestrator/secrets/{{name}} makes it", position
        )


class SecretValues(dict[str, str]):
    """What ``secrets`` stands for."""


@dataclass(slots=True)
class Work:
    """What one evaluation may still do, and where in the text it is.

    Time and memory are both bounded by it: whoever looks at a value or makes one pays for its size.
    """

    left: int = MAX_WORK
    position: int = 0

    def spend(self, amount: int) -> None:
        """Pay. Raises ``ExpressionError`` when the budget is used up."""
        self.left -= amount
        if self.left < 0:
            raise self.error("The expression takes too much work; its values are too large")

    def error(self, problem: str) -> ExpressionError:
        """An error at the current position."""
        return ExpressionError(problem, self.position)

    def check_text(self, length: int) -> None:
        """Pay for a text of this length. Raises ``ExpressionError`` when it is longer than a text may be."""
        if length > MAX_TEXT_CHARACTERS:
            raise self.error(f"The text would be longer than {MAX_TEXT_CHARACTERS} characters")
        self.spend(length)


def kind(value: Json) -> str:
    """The name of a value's type, as messages say it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else "an object"


def is_number(value: Json) -> bool:
    """Whether it is a number; booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_number(value: int | float, work: Work) -> int | float:
    """The number. Raises ``ExpressionError`` when it is not finite or no 64-bit integer."""
    if isinstance(value, int):
        if abs(value) > LARGEST_INTEGER:
            raise work.error("The number is too large")
    elif not math.isfinite(value):
        raise work.error("The number is too large")
    return value


def measure(value: Json, work: Work, depth: int = 0) -> int:
    """About the length of the value as JSON; pays for it. Raises ``ExpressionError`` when it is too deep or large."""
    if depth > MAX_VALUE_DEPTH:
        raise work.error(f"The value is nested deeper than {MAX_VALUE_DEPTH} levels")
    size = _own_size(value)
    work.spend((_CONTAINER_COST if isinstance(value, list | dict) else _VALUE_COST) + size)
    for part in _parts(value):
        size += 2 + measure(part, work, depth + 1)
    return size


def _own_size(value: Json) -> int:
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, int):
        return 2 + value.bit_length() // 4
    return 20 if isinstance(value, float) else 4


def _parts(value: Json) -> Iterator[Json]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield part


def equal(left: Json, right: Json, work: Work, depth: int = 0) -> bool:
    """Equality of JSON: by value, never across types; 1 and 1.0 are one number, true is none."""
    if depth > MAX_VALUE_DEPTH:
        raise work.error(f"The value is nested deeper than {MAX_VALUE_DEPTH} levels")
    work.spend(_VALUE_COST)
    if type(left) is type(right) and isinstance(left, int | float):
        # By far the most frequent case in long lists.
        return bool(left == right)
    # What follows takes longer than that.
    work.spend(_CONTAINER_COST)
    if kind(left) != kind(right):
        return False
    if isinstance(left, list):
        work.spend(_CONTAINER_COST)
        return len(left) == len(right) and all(
            equal(one, other, work, depth + 1) for one, other in zip(left, right, strict=True)
        )
    if isinstance(left, dict):
        work.spend(_CONTAINER_COST + len(left))
        return left.keys() == right.keys() and all(equal(left[key], right[key], work, depth + 1) for key in left)
    if isinstance(left, str):
        work.spend(min(len(left), len(right)))
    return bool(left == right)


def to_json(value: Json, work: Work) -> str:
    """The value as JSON without spaces, characters as they are."""
    measure(value, work)
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise work.error("The value holds a number that JSON cannot hold") from None
    work.check_text(len(text))
    return text


def from_json(text: str, work: Work) -> Json:
    """The value of a JSON text. Raises ``ExpressionError`` for what is no JSON, or cannot be stored."""
    work.spend(_VALUE_COST * len(text))
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise work.error("The JSON is nested too deeply") from None
    except ValueError as error:
        raise work.error(f"from_json() was given what is no JSON: {error}"[:200]) from None
    measure(value, work)
    if "\\u" in text:
        _check_characters(value, work)
    return value


def _check_characters(value: Json, work: Work) -> None:
    if isinstance(value, str) and ("\x00" in value or any("\ud800" <= sign <= "\udfff" for sign in value)):
        raise work.error("The JSON has a NUL or half of a surrogate pair in a text")
    for part in _parts(value):
        _check_characters(part, work)


def to_text(value: Json, work: Work) -> str:
    """The value as part of a text: texts as they are, null never, all else as JSON."""
    if isinstance(value, str):
        work.check_text(len(value))
        return value
    if value is None:
        raise work.error("The value is null and cannot be part of a text; write default(…, '')")
    # Each time an encoder is made.
    work.spend(_CALL_COST)
    return to_json(value, work)


def _integer(text: str) -> int:
    if len(text) > 20 or abs(value := int(text)) > LARGEST_INTEGER:
        raise ValueError("an integer has more than 64 bits")
    return value


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError("a number is too large")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_refuse)
