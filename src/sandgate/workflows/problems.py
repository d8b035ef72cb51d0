"""Collects all that is wrong with a definition, each with a JSON pointer to where it stands."""

from collections.abc import Iterator
from typing import NamedTuple

from sandgate.core.errors import InvalidDefinition

MAX_PROBLEMS = 100


class Problem(NamedTuple):
    """What is wrong and what would be right, at ``pointer`` (Source: RFC 6901); the whole document is ``""``."""

    pointer: str
    problem: str


class TooManyProblems(Exception):
    """So much is wrong that looking further helps nobody; never leaves ``parse_definition``."""


class Problems:
    """Problems in the order in which they are found."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def add(self, pointer: str, problem: str) -> None:
        """One more. Raises ``TooManyProblems`` when there are ``MAX_PROBLEMS``."""
        self._found.append(Problem(pointer, problem))
        if len(self._found) >= MAX_PROBLEMS:
            raise TooManyProblems

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found)

    def __bool__(self) -> bool:
        return bool(self._found)

    def check(self) -> None:
        """Raises ``InvalidDefinition`` with all problems when there is one."""
        if self._found:
            raise InvalidDefinition(self._found)


def below(pointer: str, *keys: str | int) -> str:
    """The pointer of a member or element of what ``pointer`` points at."""
    return pointer + "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)
