"""Which known word somebody may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

_LONGEST_SHOWN = 80
# Comparing takes a time that grows with the product of both.
_MOST_COMPARED = 100
_LONGEST_COMPARED = 40


def shown(name: str) -> str:
    """A name as messages show it: quoted, and cut when it is long."""
    return f"`{name}`" if len(name) <= _LONGEST_SHOWN else f"`{name[:_LONGEST_SHOWN]}…`"


def suggest_one(value: object, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    near = get_close_matches(value[:_LONGEST_SHOWN], list(known), n=1) if isinstance(value, str) else []
    return near[0] if near else None


def suggest(name: str, known: Iterable[str]) -> str:
    """What is right instead of ``name``: the nearest known word, or all of them when there are few; may be empty."""
    words = list(islice(known, _MOST_COMPARED))
    near = get_close_matches(name[:_LONGEST_COMPARED], [word for word in words if len(word) <= _LONGEST_COMPARED], n=1)
    if near:
        return f"did you mean {shown(near[0])}?"
    if 0 < len(words) <= 20:
        return f"known: {', '.join(map(shown, words))}"
    return ""


def hint(name: str, known: Iterable[str]) -> str:
    """The suggestion as the end of a sentence; empty when there is none."""
    found = suggest(name, known)
    return f"; {found}" if found else ""
