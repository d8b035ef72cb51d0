"""JSON with the line of every value. Refused is what JSON has not in the strict sense: keys given twice, NaN."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from sandgate.cli.workflows.positions import DocumentRefused, Positions

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)


def parse_json(text: str, name: str) -> tuple[Any, Mapping[str, int]]:
    """The value, and the lines of all values in it by their pointers. Raises ``DocumentRefused``."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float)
    except json.JSONDecodeError as error:
        message = f"{name}:{error.lineno}: this is no JSON: {error.msg} (column {error.colno})"
        raise DocumentRefused(message, name, error.lineno) from None
    except RecursionError:
        raise DocumentRefused(f"{name}: this is nested too deep", name, 1) from None
    except ValueError as error:
        raise DocumentRefused(f"{name}: {error}", name, 1) from None
    return value, _locate(text, name)


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no number in JSON")


def _parse_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is larger than numbers can be")
    return number


def _locate(text: str, name: str) -> Mapping[str, int]:
    """Walk over the tokens of what is known to be JSON."""
    positions = Positions(name)
    line, counted, key_comes = 1, 0, [False]
    for token in _TOKEN.finditer(text):
        line += text.count("\n", counted, token.start())
        counted = token.start()
        _take(positions, token.group(), line, key_comes)
    return positions.lines


def _take(positions: Positions, part: str, line: int, key_comes: list[bool]) -> None:
    """``key_comes`` says for each open list and object whether a text that comes now is a key."""
    if part in ("{", "["):
        positions.enter({} if part == "{" else [], line)
        key_comes.append(part == "{")
    elif part in ("}", "]"):
        key_comes.pop()
        container = positions.places.pop().container
        if positions.places:
            positions.places[-1].add(container)
    elif part == ",":
        key_comes[-1] = isinstance(positions.places[-1].container, dict)
    elif part == ":":
        key_comes[-1] = False
    elif key_comes[-1]:
        positions.set_key(json.loads(part), line)
    else:
        positions.note(line)
        if positions.places:
            positions.places[-1].add(None)
