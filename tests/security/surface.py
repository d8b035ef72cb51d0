"""The snapshot of the kernel's surface: what the filter says to each system call of this processor."""

import errno
from collections.abc import Mapping
from pathlib import Path

from tests.runtime.kernel import ALLOW, KILL, judge, looks_at_arguments, numbers

SNAPSHOT = Path(__file__).with_name("surface.txt")
# What is said to a call whose arguments decide.
BY_ARGUMENTS = "arguments"


def describe(verdict: int) -> str:
    """A verdict of the filter in a word: ``allowed``, ``killed``, ``ignored``, or the name of an error."""
    if verdict in (ALLOW, KILL):
        return "allowed" if verdict == ALLOW else "killed"
    number = verdict & 0xFFFF
    return errno.errorcode[number] if number else "ignored"


def surface(program: bytes) -> Mapping[str, str]:
    """What a filter says to every call that is known here."""
    return {
        name: BY_ARGUMENTS if looks_at_arguments(program, number) else describe(judge(program, number))
        for name, number in numbers().items()
    }


def read_snapshot() -> Mapping[str, tuple[int, str]]:
    """The number on x86_64 of each call, and what is said to it."""
    rows = [line.split() for line in SNAPSHOT.read_text().splitlines() if not line.startswith("#")]
    return {name: (int(number), word) for number, name, word in rows}
