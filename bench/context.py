"""What every measurement gets: how long it may take, and the interpreter behind the template."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from bench.figures import Reference
from bench.references import Interpreter, ReferenceUnavailable, find_interpreter
from sandgate.sandbox.interpreters import find_interpreters

VERSION = "3.9"


@dataclass(frozen=True)
class Bench:
    """The circumstances of a run; ``quick`` asks for few samples, to see that everything works."""

    quick: bool = False

    def count(self, full: int, quick: int) -> int:
        """How many samples to take."""
        return quick if self.quick else full

    @cached_property
    def interpreter(self) -> Interpreter:
        """The interpreter of the template python-3.9. Raises ``ReferenceUnavailable`` when there is none."""
        found = find_interpreters().get(VERSION)
        if found is None:
            raise ReferenceUnavailable(f"no Python {VERSION} on this machine")
        return find_interpreter(found.executable)


def say(text: str) -> None:
    """Tell whoever waits what is being measured now."""
    print(text, file=sys.stderr, flush=True)


def refer(name: str, measure: Callable[[], float]) -> Reference:
    """Measure a reference, or note why this machine cannot."""
    try:
        return Reference(name, measure())
    except ReferenceUnavailable as reason:
        say(f"  without {name}: {reason}")
        return Reference(name, None, str(reason))
